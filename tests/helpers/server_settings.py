"""Sections of params.yaml for the server of a test, and what it draws."""

import io

from PIL import Image, PngImagePlugin

from helpers.openai_server import Script
from ltgc.pipeline.settings.servers import ChatSettings, T2ISettings

KEY = "sk-very-secret-0123456789"

SLUG = "0000-rose"


def chat_section(script: Script, **changes) -> ChatSettings:
    section = {
        "base_url": script.base_url, "model": "m", "api_key_env": "TEST_KEY", "temperature": 0.5, "seed": 1,
        "max_tokens": 100, "timeout": 5, "retries": 0, "concurrency": 4,
    }  # fmt: skip
    return ChatSettings.model_validate(section | changes)


def t2i_section(script: Script, **changes) -> T2ISettings:
    section = {
        "backend": "openai", "base_url": script.base_url, "model": "m", "api_key_env": "TEST_KEY", "size": "64x64",
        "send_seed": True, "seed": 1, "timeout": 5, "retries": 0, "concurrency": 4,
    }  # fmt: skip
    return T2ISettings.model_validate(section | changes)


def png(colour: str = "red", size: tuple[int, int] = (4, 4), **text: str) -> bytes:
    file = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    Image.new("RGB", size, colour).save(file, "PNG", pnginfo=info)
    return file.getvalue()
