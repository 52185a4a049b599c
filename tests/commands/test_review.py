"""`ltgc review` over HTTP: what is shown first, what a verdict writes, and who may send one."""

import re
import socket
import threading
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient
from helpers import finished_pipeline

from ltgc.commands import review
from ltgc.commands.review import doubts, page
from ltgc.data import images
from ltgc.pipeline import files
from ltgc.pipeline.artifacts.descriptions import TEMPLATES, ClassTemplate
from ltgc.pipeline.artifacts.drawings import ATTEMPTS, Attempt
from ltgc.pipeline.artifacts.review import REVIEW, ReviewRow

NAME = "Edelweiss"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    finished_pipeline.build(folder, names=["Field <b>poppy</b>", NAME, "Aquilegia"], counts=[150, 6, 4])
    return folder


@pytest.fixture
def client(finished: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(finished)
    REVIEW.unlink(missing_ok=True)
    templates = files.read_jsonl(TEMPLATES, ClassTemplate)
    templates[0] = templates[0].model_copy(update={"reason": "has_scene"})
    files.write_jsonl(TEMPLATES, templates)
    with TestClient(page.make_app(doubts.read()), base_url="http://127.0.0.1:8000") as client:
        yield client


def rows() -> list[ReviewRow]:
    return files.read_csv(REVIEW, ReviewRow)


def verdict(verdict: str, text: str | None = None, item: str = "template", which: str | None = None) -> dict:
    return {"item": item, "class_name": NAME, "which": which, "verdict": verdict, "text": text}


def section(html: str, title: str) -> str:
    return html.split(f"<h2>{title}</h2>")[1].split("</section>")[0]


def test_the_doubtful_come_first_each_group_by_how_doubtful(client):
    html = client.get("/").text
    near = section(html, "Nearly a test image")
    assert "2 of 64 bits differ from a test image of" in near and near.count("<img") == 2
    failed = section(html, "Refused or failed")
    assert "name stands in for its template: has scene" in failed
    assert failed.count("no description: refused") == 2
    assert failed.count("no drawing of this description: refused") == 2
    scores = [float(score) for score in re.findall(r"(\S+) against 0\.250", section(html, "Near the threshold"))]
    assert scores and [abs(s - 0.25) for s in scores] == sorted(abs(s - 0.25) for s in scores)
    assert "Field &lt;b&gt;poppy" in html and "<b>poppy" not in html


def test_every_image_on_the_page_is_served_and_no_other_file(client):
    html = client.get("/").text
    for address in set(re.findall(r'src="(/image/\d+)"', html)):
        images.decode(client.get(address).content)
    assert client.get("/image/9999").status_code == 404
    assert client.get("/image/../params.yaml").status_code == 404


def test_verdicts_are_written_at_once_in_order_and_leave_the_groups(client):
    attempts = files.read_jsonl(ATTEMPTS, Attempt)
    hashes = [images.content_hash(images.read(a.image)) for a in attempts if a.image and a.class_name == NAME]
    sent = [
        verdict("reword", f"A photo of the class {NAME} with {{white stars}}{{wool}}."),
        verdict("reject", item="drawing", which=hashes[0]),
        verdict("accept", item="drawing", which=hashes[1]),
        verdict("reject", item="drawing", which=hashes[1]),  # thought better of it
    ]
    assert [client.post("/verdict", json=each).json() for each in sent] == [{"decided": n} for n in (1, 2, 3, 3)]
    decided = {(row.item, row.which): row.verdict for row in rows()}
    wanted = {("drawing", hashes[0]): "reject", ("drawing", hashes[1]): "reject", ("template", None): "reword"}
    assert decided == wanted and [row.key for row in rows()] == sorted(row.key for row in rows())
    html = client.get("/").text
    assert hashes[0] not in html.split("<h2>Decided</h2>")[0] and hashes[0] in html
    undone = client.post("/verdict", json=verdict("undo", item="drawing", which=hashes[0])).json()
    assert undone == {"decided": 2} and len(rows()) == 2


def test_all_of_one_class_can_be_looked_at(client):
    client.post("/verdict", json=verdict("reject"))
    html = client.get("/", params={"class_name": NAME}).text
    assert html.count('data-item="existing"') == 6 and html.count('data-item="extended"') == 10
    assert html.count('data-item="template"') == 1 and html.count('data-item="drawing"') == 6
    assert 'data-decided="reject"' in html and "horned petals" in html


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (verdict("reword", "red petals"), "it did not follow the template; begin with 'A photo of the class Edel"),
        (verdict("reword"), "verdict reword needs a text"),
        (verdict("refuse"), "Input should be 'accept', 'reject' or 'reword'"),
    ],
)
def test_a_verdict_that_could_not_be_honoured_is_refused_with_the_reason(client, sent, message):
    answer = client.post("/verdict", json=sent)
    assert answer.status_code == 422 and message in answer.json()["detail"]
    assert not REVIEW.exists()


def test_a_file_with_a_wrong_line_is_not_overwritten(client):
    REVIEW.write_text("item,class_name,which,verdict,text\nleaf,rose,,reject,\n")
    answer = client.post("/verdict", json=verdict("reject"))
    assert answer.status_code == 409 and "review.csv, line 2: item" in answer.json()["detail"]
    assert "leaf" in REVIEW.read_text()


def test_another_web_page_in_the_same_browser_can_decide_nothing(client):
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    plain = client.post("/verdict", content=REVIEW_JSON, headers={"Content-Type": "text/plain"})
    assert plain.status_code == 422 and not REVIEW.exists()
    assert "access-control-allow-origin" not in client.get("/").headers


def test_the_command_serves_this_machine_alone(finished, monkeypatch, capfd):
    monkeypatch.chdir(finished)
    REVIEW.unlink(missing_ok=True)
    servers = []

    class Recorded(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            servers.append(self)

    monkeypatch.setattr(uvicorn, "Server", Recorded)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    thread = threading.Thread(target=review.main, args=(port, False))
    thread.start()
    try:
        with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            listens = socket.socket()
            while listens.connect_ex(("127.0.0.1", port)) and thread.is_alive():
                pass
            listens.close()
            connection.request("POST", "/verdict", REVIEW_JSON, {"Content-Type": "application/json"})
            assert connection.getresponse().read() == b'{"decided":1}'
        assert [s.getsockname()[0] for s in servers[0].servers[0].sockets] == ["127.0.0.1"]
    finally:
        servers[0].should_exit = True
        thread.join()
    said = capfd.readouterr().err.split()
    assert f"http://127.0.0.1:{port}/" in said and "review.csv" in said
    assert [row.verdict for row in rows()] == ["reject"]


REVIEW_JSON = '{"item": "template", "class_name": "Edelweiss", "which": null, "verdict": "reject", "text": null}'
