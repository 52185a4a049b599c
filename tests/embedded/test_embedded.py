"""The embedded default: the world, its language, the endpoint as a real server, and the small CLIP."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import httpx
import numpy as np
import open_clip
import openai
import psutil
import pytest
import torch
from helpers.paths import ROOT
from langchain_openai import ChatOpenAI
from PIL import Image

from embedded import endpoint, field_guide, truth, words, yes_no
from embedded.captions import OPTIONS, caption, codes, near_neighbour, random_flower
from embedded.pretrain import text_features, zero_shot
from embedded.wildflowers import AXES, SCENES, load_species, photos
from embedded.wildflowers.dataset import encoded
from graphs import prompts
from graphs.parse.reply import Unusable
from graphs.parse.yes_no import parse_answers

WORLD = ROOT / "embedded" / "wildflowers"


@pytest.fixture(scope="session")
def url():
    with endpoint.running() as url:
        yield url


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def ask(client, content, **options):
    messages = [{"role": "user", "content": content}]
    return client.chat.completions.create(model="field-guide", messages=messages, **options)


@pytest.fixture(scope="session")
def world():
    return list(photos(WORLD, seed=0))


def test_every_shot_group_has_five_classes_and_val_and_test_are_balanced(world):
    counts = Counter((photo.species, photo.split) for photo in world)
    names = {photo.species for photo in world}
    train = [counts[name, "train"] for name in names]
    assert len(names) == 24
    assert max(train) == 150
    assert min(train) == 4
    assert sum(n > 100 for n in train) >= 5
    assert sum(20 <= n <= 100 for n in train) >= 5
    assert sum(n < 20 for n in train) >= 5
    assert {counts[name, "val"] for name in names} == {40}
    assert {counts[name, "test"] for name in names} == {40}


def test_rare_species_show_part_of_their_scenes_and_variants_in_training_and_all_of_them_in_test(world):
    for species in (s for s in load_species(WORLD) if s.train < 20):
        shown = {
            split: [truth.flower(p.png) for p in world if (p.species, p.split) == (species.name, split)]
            for split in ("train", "test")
        }
        assert len({f.scene for f in shown["train"]}) <= 2
        assert len({f.scene for f in shown["test"]}) >= 9
        assert len({f.colour for f in shown["train"]}) == 1
        likely = {colour for colour, p in species.features["colour"].items() if p >= 0.2}
        assert likely <= {f.colour for f in shown["test"]}
        assert all(species.shows(f) for f in shown["test"])


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others():
    flower = random_flower(np.random.default_rng(3))
    a, b, c = (encoded(flower, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert a == b
    assert a != c
    assert Image.open(io.BytesIO(a)).size == (64, 64)


def test_words_are_read_back_as_they_were_put():
    rng = np.random.default_rng(0)
    for _ in range(500):
        flower = vars(random_flower(rng))
        scene = words.put_scene(flower["scene"], rng)
        text = f"A photo of the class Papaver rhoeas, with {words.put(flower, rng)} {scene}."
        shape_is_told = flower["form"] == "open"
        assert words.read(text) == {k: v for k, v in flower.items() if k != "shape" or shape_is_told}, text


def test_a_caption_tells_the_features_that_it_is_said_to_tell():
    rng = np.random.default_rng(0)
    for _ in range(300):
        flower = random_flower(rng)
        text, told = caption(flower, rng)
        found = words.read(text)
        for axis, said in zip(OPTIONS, told, strict=True):
            if axis == "count" and flower.form != "open":  # read as "one", though nothing is said
                continue
            assert found.get(axis) == (getattr(flower, axis) if said else None), (axis, text)


def test_near_neighbours_look_different_and_share_all_but_one_feature_or_the_form():
    rng = np.random.default_rng(0)
    for _ in range(300):
        flower = random_flower(rng)
        other = near_neighbour(flower, rng)
        differing = [axis for axis in OPTIONS if getattr(flower, axis) != getattr(other, axis)]
        assert codes(flower) != codes(other)
        assert len(differing) == 1 or "form" in differing


def test_the_world_has_more_scenes_than_nine_and_siblings_differ_in_at_least_one_feature():
    assert len(SCENES) >= 9
    kinds = field_guide.species()
    for kind in kinds.values():
        other = kinds[kind.sibling]
        assert any(set(kind.features[axis]) != set(other.features[axis]) for axis in AXES), kind.name


def test_plain_openai_client_lists_models_and_gets_n_choices_with_usage(client):
    assert [m.id for m in client.models.list()] == ["field-guide", "paint-box"]
    reply = ask(client, "Summarize the most distinctive features of the class Papaver rhoeas.", n=3)
    assert len(reply.choices) == 3
    assert all("Papaver rhoeas" in choice.message.content for choice in reply.choices)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0


def test_langchain_chat_model_asks_about_an_image(url, world):
    photo = next(photo for photo in world if (photo.species, photo.split) == ("Papaver rhoeas", "test"))
    image = base64.b64encode(photo.png).decode()
    content = [
        {"type": "text", "text": "Describe this image of the class Papaver rhoeas."},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    reply = ChatOpenAI(base_url=url, api_key="none", model="field-guide", seed=1).invoke([("user", content)])
    assert {"form", "colour", "scene"} <= words.read(reply.text).keys()
    assert reply.usage_metadata["total_tokens"] > 0


def test_the_vision_model_tells_features_that_a_drawing_has_from_others(client):
    rng = np.random.default_rng(0)
    right = []
    for _ in range(6):
        flower = random_flower(rng)
        other = "white" if flower.colour != "white" else "blue"
        # What is there, and the same in a colour that is not.
        asked = [words.put(values, rng, ["colour"]) for values in (vars(flower), vars(flower) | {"colour": other})]
        url = f"data:image/png;base64,{base64.b64encode(encoded(flower, rng)).decode()}"
        for number in range(1, 6):
            (question,) = prompts.load("ask_features").ask_features(asked, url, None, number)
            reply = ask(client, question.content, seed=number).choices[0].message.content
            try:
                right.append(parse_answers(reply, 2) == [True, False])
                break
            except Unusable:  # now and then it forgets what it was asked for
                continue
    assert len(right) == 6 and sum(right) >= 5
    kinds = field_guide.species()
    looks = {name: kind.sample(rng, common_only=True) for name, kind in kinds.items()}
    assert all(yes_no.shows(flower, name) for name, flower in looks.items())
    assert not any(yes_no.shows(looks[kind.sibling], name) for name, kind in kinds.items())


def test_the_vision_model_sees_pixels_and_no_metadata(client, world):
    """Strip the truth from the file: the answer has to stay the same."""
    photo = next(photo for photo in world if (photo.species, photo.split) == ("Arnica montana", "test"))
    bare = io.BytesIO()
    Image.open(io.BytesIO(photo.png)).convert("RGB").save(bare, "PNG", pnginfo=None)
    assert b"truth" not in bare.getvalue()
    answers = []
    for data in (photo.png, bare.getvalue()):
        url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        text, images = endpoint._question(
            [endpoint.Message(role="user", content=[{"type": "image_url", "image_url": {"url": url}}])]
        )
        assert text == ""
        assert images[0].info == {}
        answers.append(images[0].tobytes())
    assert answers[0] == answers[1]


def test_the_same_request_gets_the_same_answer_and_another_seed_another(client):
    question = "Please list other features and scenes for the class Digitalis purpurea."
    first, again, other = (ask(client, question, seed=seed).choices[0].message.content for seed in (1, 1, 2))
    assert first == again != other


def test_images_come_as_png_that_shows_what_the_prompt_says_and_tells_its_truth(client, tmp_path):
    features = "four rounded orange petals, a green centre and feathery leaves"
    prompt = f"A photo of the class Papaver dubium, with {features} in fresh snow."
    said = words.read(prompt)
    kept = []
    for seed in range(30):
        reply = client.images.generate(model="paint-box", prompt=prompt, size="64x64", extra_body={"seed": seed})
        drawn = vars(truth.flower(base64.b64decode(reply.data[0].b64_json)))
        kept.append(sum(drawn[axis] == value for axis, value in said.items()))
    assert max(kept) == len(said)
    assert 1 <= sum(k < len(said) for k in kept) <= 15  # now and then a part of the prompt is ignored


def test_an_edit_sees_the_pixels_of_the_photo_and_keeps_more_of_them_at_a_low_strength(client, world):
    photo = next(p for p in world if p.species == "Leucanthemum vulgare")
    stripped = io.BytesIO()
    Image.fromarray(np.asarray(Image.open(io.BytesIO(photo.png)))).save(stripped, "PNG")  # without its truth
    prompt = "A photo of the class x, with red hanging bells, a black rim and feathery leaves in fresh snow."

    def edited(strength: float):
        file = ("photo.png", stripped.getvalue(), "image/png")
        more = {"seed": 0, "strength": strength}
        reply = client.images.edit(model="paint-box", image=file, prompt=prompt, size="64x64", extra_body=more)
        return truth.flower(base64.b64decode(reply.data[0].b64_json))

    weak, strong = edited(0.05), edited(1.0)
    assert (weak.form, weak.colour, strong.form, strong.colour) == ("open", "white", "bell", "red")
    with pytest.raises(openai.BadRequestError, match="strength"):
        edited(2.0)
    with pytest.raises(openai.BadRequestError, match="image"):
        client.images.edit(model="paint-box", image=("photo.png", b"no image", "image/png"), prompt=prompt)


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (
            "chat/completions",
            {"model": "gpt-9", "messages": [{"role": "user", "content": "x"}]},
            404,
            "model_not_found",
        ),
        ("chat/completions", {"model": "field-guide", "messages": []}, 400, None),
        ("chat/completions", {"model": "field-guide"}, 400, None),
        ("images/generations", {"model": "paint-box", "prompt": ""}, 400, None),
        ("images/generations", {"model": "paint-box", "prompt": "x", "size": "huge"}, 400, None),
    ],
)
def test_errors_come_in_openai_format(url, path, body, status, code):
    reply = httpx.post(f"{url}/{path}", json=body)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] == code
    assert error["message"]


def test_the_language_model_errs_at_its_rates(client):
    """Over many lists: repeats, features of the sibling, lines that are not in the template."""
    kind = field_guide.species()["Daucus carota"]
    known = [
        field_guide.describe(kind.name, kind.sample(np.random.default_rng(i)), np.random.default_rng(i))
        for i in range(4)
    ]
    question = "\n".join(known) + "\nPlease list other features and scenes for the class Daucus carota."
    lines = [
        line
        for seed in range(40)
        for line in ask(client, question, seed=seed).choices[0].message.content.splitlines()
    ]
    described = [line for line in lines if "photo of the class" in line]
    strange = sum(
        any(v not in kind.features[a] for a, v in words.read(d).items() if a in kind.features) for d in described
    )
    off_template = sum("can also be found" in line for line in lines)
    repeated = sum(field_guide.key(d) in {field_guide.key(k) for k in known} for d in described)
    assert 0.02 < strange / len(described) < 0.25
    assert off_template > 0
    assert repeated > 0


def test_told_of_a_rival_the_language_model_lists_what_the_rival_cannot_show():
    kind = field_guide.species()["Rudbeckia hirta"]
    rival = field_guide.species()["Arnica montana"]
    asked = f'Please list other features of images of the class "{kind.name}": up to 20 descriptions.'
    told = f'{asked}\nImages of this class are often taken for "{rival.name}": describe images in which'

    def apart(question: str) -> float:
        replies = [field_guide.answer(question, np.random.default_rng(seed)) for seed in range(20)]
        listed = [words.read(line) for reply in replies for line in field_guide.entries(reply)]
        return np.mean([any(v not in rival.features.get(a, {v}) for a, v in said.items()) for said in listed])

    assert apart(told) > apart(asked) + 0.1


def test_the_endpoint_ends_when_the_process_that_started_it_is_killed():
    script = (
        "import embedded.endpoint as e, sys\nwith e.running() as url: print(url, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as parent:
        url = parent.stdout.readline().strip()
        assert httpx.get(f"{url}/models").status_code == 200
        server = _listener(int(url.split(":")[-1].split("/")[0]))
        os.kill(parent.pid, signal.SIGKILL)
    psutil.wait_procs([server], timeout=20)
    assert not server.is_running(), "the endpoint outlived its parent"


def _listener(port: int) -> psutil.Process:
    """The process that listens on `port`."""
    listening = (c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port)
    return psutil.Process(next(listening).pid)


def test_the_small_clip_reads_descriptions_and_does_not_know_names():
    folder = ROOT / "embedded" / "clip"
    assert sum(f.stat().st_size for f in folder.iterdir()) < 8_000_000
    model = open_clip.create_model(f"local-dir:{folder}")
    model.eval()
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    scores = zero_shot(model, tokenize)
    assert 75 <= scores["zero_shot_templates"] <= 90
    assert scores["zero_shot_names"] <= 3 * scores["chance"]
    tokens = tokenize(["A photo of five petals.", "A photo of the class Anbel, a tall red spike at dusk."])
    with torch.no_grad():  # pretraining leaves out the padding
        torch.testing.assert_close(text_features(model, tokens), model.encode_text(tokens, normalize=True))


def test_the_card_of_the_small_clip_is_what_pretraining_wrote():
    card = json.loads((ROOT / "embedded" / "clip" / "card.json").read_text())
    assert card["steps"] > 0
    assert 75 <= card["zero_shot_templates"] <= 90
