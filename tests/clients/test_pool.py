"""The pool of replies that a user has paid for, and the shared stores that come from it and go into it."""

import json
import os
import shutil
import sqlite3
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from helpers.openai_server import Fault, Script, said
from helpers.paid_calls import ask, draw
from helpers.server_settings import KEY, SLUG, chat_section, png, t2i_section
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ltgc.clients import pool, server, shared_store
from ltgc.clients.budget import Budget
from ltgc.clients.database import FILE, Database
from ltgc.clients.limits import Limits
from ltgc.clients.pool import Pool
from ltgc.clients.server import Server
from ltgc.clients.store import Store
from ltgc.data import shards
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.settings.servers import Price


@pytest.fixture
def script(running_server: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    running_server.reset()
    running_server.chat = lambda request: f"reply {running_server.calls} to {said(request)}"
    running_server.image = lambda request: png()
    monkeypatch.setenv("TEST_KEY", KEY)
    return running_server


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def another_pool(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("LTGC_CACHE", str(folder))


def lock_of(model: str, md5: str, files: int = 1) -> str:
    """dvc.lock after a run of describe with that model."""
    outs = [{"path": "store/describe", "md5": md5, "nfiles": files}]
    stage = {"params": {"params.yaml": {"vision": {"model": model}}}, "outs": outs}
    return yaml.safe_dump({"stages": {"describe": stage}})


# --- what is in the pool is not asked again ---


def test_every_folder_of_a_user_finds_what_was_paid_for_and_shares_only_what_it_used(script, tmp_path):
    section = chat_section(script)
    first = ask(section, tmp_path / "one", "a", "b", "c")
    assert ask(section, tmp_path / "two", "c", "a") == [first[2], first[0]]
    assert script.calls == 3
    assert len((tmp_path / "two" / f"{SLUG}.jsonl").read_text().splitlines()) == 2
    assert ask(section, tmp_path / "two", "b", "a", "c") == [first[1], first[0], first[2]]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_reply_is_in_the_pool_before_the_next_question_is_asked(script, tmp_path, pool_folder):
    seen = []

    def answer(request):
        with sqlite3.connect(pool_folder / FILE) as db:
            seen.append(db.execute("SELECT COUNT(*) FROM replies").fetchone()[0])
        return "x"

    script.chat = answer
    ask(chat_section(script, concurrency=1), tmp_path, "a", "b", "c")
    assert seen == [0, 1, 2]


def test_two_servers_that_call_their_model_the_same_keep_their_replies_apart(script, tmp_path, monkeypatch):
    here = chat_section(script)
    there = chat_section(script, base_url=script.base_url.replace("127.0.0.1", "localhost"))
    (one,), (other,) = ask(here, tmp_path / "here", "a"), ask(there, tmp_path / "there", "a")
    assert script.calls == 2 and one != other
    assert [ask(here, tmp_path / "again", "a"), ask(there, tmp_path / "again", "a")] == [[one], [other]]
    assert b"127.0.0.1" not in b"".join(contents(tmp_path).values())  # what is shared names no address

    another_pool(monkeypatch, tmp_path / "a teammate's pool")
    assert ask(there, tmp_path / "here", "a") == [one]  # what was pulled answers for any server
    assert script.calls == 2


def test_of_two_teammates_replies_the_one_in_the_workspace_wins_and_none_is_thrown_away(
    script, tmp_path, monkeypatch
):
    section, replies = chat_section(script), {}
    for name in ("ann", "ben"):
        another_pool(monkeypatch, tmp_path / f"pool of {name}")
        replies[name] = ask(section, tmp_path / name, "a")
    stores = {name: contents(tmp_path / name) for name in replies}
    another_pool(monkeypatch, tmp_path / "mine")
    for name in ("ann", "ben", "ann", "ben"):
        assert ask(section, tmp_path / name, "a") == replies[name] and contents(tmp_path / name) == stores[name]
    assert script.calls == 2
    assert len(Database(tmp_path / "mine", "").rows("SELECT id FROM replies")) == 2


def test_files_of_two_teammates_that_were_joined_give_the_same_reply_in_every_run(script, tmp_path):
    lines = [json.dumps({"key": "k", "model": "m", "text": text}) for text in "yx"]
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / f"{SLUG}.jsonl").write_text("\n".join(lines))  # and no newline at the end
    assert [reply["text"] for _, _, reply in shared_store.read(tmp_path / "store")] == ["y", "x"]
    for _ in range(2):
        with Store(tmp_path / "store", [chat_section(script)], share=False) as store:
            assert store.get(script.base_url, SLUG, "k") == {"model": "m", "text": "y"}


def test_a_class_whose_label_moved_pays_nothing_again(script, tmp_path, monkeypatch):
    ask(chat_section(script), tmp_path / "store", "a")
    (tmp_path / "store" / f"{SLUG}.jsonl").rename(tmp_path / "store" / "0001-rose.jsonl")
    another_pool(monkeypatch, tmp_path / "another pool")
    ask(chat_section(script), tmp_path / "store", "a")
    assert script.calls == 1 and list(contents(tmp_path / "store")) == [f"{SLUG}.jsonl"]


def test_stores_of_older_versions_are_taken_in_with_their_drawings(script, tmp_path, monkeypatch):
    section, folder = t2i_section(script), tmp_path / "store"
    (drawing,) = draw(section, folder, ("a rose", 7))
    (line,) = (folder / f"{SLUG}.jsonl").read_text().splitlines()
    assert drawing.image is not None
    shards.write(folder / f"{SLUG}.tar", [(f"{json.loads(line)['image']}.png", drawing.image)])
    another_pool(monkeypatch, tmp_path / "another pool")
    assert draw(section, folder, ("a rose", 7)) == [drawing]
    assert script.calls == 1 and list(contents(folder)) == [f"{SLUG}.jsonl"]


def test_a_torn_last_line_of_a_shared_store_is_left_out_and_a_broken_one_is_named(script, tmp_path, monkeypatch):
    folder = tmp_path / "store"
    ask(chat_section(script), folder, "a", "b", "c")
    file = folder / f"{SLUG}.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    another_pool(monkeypatch, tmp_path / "another pool")
    ask(chat_section(script), folder, "a", "b", "c")
    assert script.calls == 4
    file.write_bytes(whole + b"<<<<<<< HEAD\n" + whole)
    with pytest.raises(LTGCError, match=rf"{SLUG}.jsonl, line 4: .*delete the line"):
        ask(chat_section(script), folder, "a")


# --- what dvc.lock says was paid for ---


def test_what_dvc_lock_names_is_not_bought_again_while_a_part_of_it_is_missing(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Path("store/describe")
    ask(chat_section(script), store, *"abc")
    md5 = shared_store.md5(store)
    line = (store / f"{SLUG}.jsonl").read_text().splitlines(keepends=True)
    another_pool(monkeypatch, tmp_path / "another pool")
    for part in ("", line[0]):  # nothing was pulled, or a part
        (store / f"{SLUG}.jsonl").write_text(part)
        Path("dvc.lock").write_text(lock_of("m", md5))
        with pytest.raises(LTGCError, match=r"store/describe: dvc.lock says that replies of m .*dvc pull"):
            ask(chat_section(script), store, "d")
        assert script.calls == 3
        free = Budget(prices={"m": Price(input=0, output=0)})
        another_pool(monkeypatch, tmp_path / f"free {len(part)}")
        ask(chat_section(script), store, "a", budget=free)  # costs nothing: asked again
        script.requests.pop()
        another_pool(monkeypatch, tmp_path / "another pool")
    for other in (lock_of("another", md5), lock_of("m", md5, files=0)):
        Path("dvc.lock").write_text(other)
        ask(chat_section(script), store, other[:40])
    calls = script.calls
    Path("dvc.lock").write_text(lock_of("m", md5))
    (store / f"{SLUG}.jsonl").write_text("".join(line))  # pulled
    ask(chat_section(script), store, *"abc")
    assert script.calls == calls
    ask(chat_section(script), store, "e")
    assert script.calls == calls + 1


# --- faults of the disk ---


@pytest.mark.parametrize("fault", ["no folder", "a relative one", "no room", "a damaged file", "a newer version"])
def test_a_pool_that_cannot_be_used_is_one_line_before_anything_is_paid(
    script, tmp_path, pool_folder, monkeypatch, fault
):
    if fault == "no folder":
        another_pool(monkeypatch, Path("/proc/no-folder/can/be/made"))
    elif fault == "a relative one":
        monkeypatch.chdir(tmp_path)
        another_pool(monkeypatch, Path("pool"))
    elif fault == "no room":
        monkeypatch.setattr(pool, "LEAST_FREE", 2**60)
    elif fault == "a damaged file":
        (pool_folder / FILE).write_bytes(b"not a database" * 1000)
    else:
        Database(pool_folder, "").close()
        sqlite3.connect(pool_folder / FILE).execute("PRAGMA user_version=99")
    with pytest.raises(LTGCError, match=r"name another folder|write the whole path") as error:
        ask(chat_section(script), tmp_path, "a")
    assert script.calls == 0 and "\n" not in str(error.value)


def test_a_disk_that_fills_up_stops_the_stage_with_one_line_and_loses_only_what_was_in_flight(
    script, tmp_path, pool_folder, monkeypatch
):
    script.chat = lambda request: "x" * 50_000
    connect = Database._connect

    def small(self: Database) -> sqlite3.Connection:
        connection = connect(self)
        connection.execute("PRAGMA max_page_count=60")
        return connection

    monkeypatch.setattr(Database, "_connect", small)
    section = chat_section(script, concurrency=1)
    with pytest.raises(LTGCError, match=rf"{FILE}: database or disk is full; free some space"):
        ask(section, tmp_path, *map(str, range(20)))
    monkeypatch.undo()
    monkeypatch.setenv("TEST_KEY", KEY)
    another_pool(monkeypatch, pool_folder)
    calls = script.calls
    assert 1 < calls < 20
    ask(section, tmp_path, *map(str, range(20)))
    assert script.calls <= 21


def test_a_drawing_that_the_disk_damaged_is_an_error_and_one_that_is_gone_is_drawn_again(
    script, tmp_path, pool_folder
):
    section = t2i_section(script)
    (drawing,) = draw(section, tmp_path, ("a rose", 7))
    (file,) = (path for path in (pool_folder / "images").rglob("*") if path.is_file())
    file.write_bytes(bytes(len(file.read_bytes())))  # as after a power cut
    with pytest.raises(LTGCError, match=r"not the drawing that was stored; .*delete it"):
        draw(section, tmp_path, ("a rose", 7))
    file.unlink()
    assert draw(section, tmp_path, ("a rose", 7)) == [drawing]
    assert script.calls == 2


def test_nothing_in_the_pool_can_be_changed_or_deleted(script, tmp_path, pool_folder):
    ask(chat_section(script), tmp_path, "a")
    with sqlite3.connect(pool_folder / FILE) as db:
        for table in ("replies", "stores", "reservations", "settlements"):
            for change in (f"DELETE FROM {table}", f"UPDATE {table} SET rowid = 9"):
                with pytest.raises(sqlite3.IntegrityError, match="only added to"):
                    db.execute(change)


@pytest.fixture(scope="module")
def power_cut(tmp_path_factory):
    """(files of a pool whose log was not yet merged, offset at which the last commit begins in the log)."""
    folder = tmp_path_factory.mktemp("power cut")
    whole = Pool(folder)
    for text in ("first", "last"):
        begin = (folder / f"{FILE}-wal").stat().st_size
        whole.database.write_now(lambda db, text=text: pool.insert(db, text, "there", {"text": text * 200}))
    files = {name: (folder / name).read_bytes() for name in (FILE, f"{FILE}-wal")}
    whole.close()
    return files, begin


@settings(max_examples=2 * int(os.environ.get("FUZZ", "30")), deadline=None)
@given(data=st.data(), zeroed=st.booleans())
def test_a_power_cut_at_any_byte_of_the_last_record_loses_at_most_that_record(
    power_cut, tmp_path_factory, data, zeroed
):
    files, begin = power_cut
    log = files[f"{FILE}-wal"]
    cut = data.draw(st.integers(begin, len(log) - 1))
    folder = tmp_path_factory.mktemp("after")
    (folder / FILE).write_bytes(files[FILE])
    torn = log[:cut] + (bytes(len(log) - cut) if zeroed else b"")
    assume(torn != log)  # zeros that were zeros before
    (folder / f"{FILE}-wal").write_bytes(torn)
    found = Pool(folder)
    assert [stored.reply for stored in found.find("first", "there")] == [{"text": "first" * 200}]
    assert found.find("last", "there") == []
    found.database.write_now(lambda db: pool.insert(db, "last", "there", {"text": "again"}))
    assert [stored.reply for stored in found.find("last", "there")] == [{"text": "again"}]
    found.close()
    shutil.rmtree(folder)


# --- the embedded endpoint ---


def test_replies_of_the_embedded_endpoint_stay_in_the_project_and_depend_on_its_code(
    script, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    section = chat_section(script, base_url="embedded")
    (version,) = Server("llm", section, Limits([section])).version
    assert version == pool.embedded_digest() and len(version) == 64
    assert pool.project_folder() == tmp_path / ".ltgc"
    with Store(tmp_path / "store", [section]):
        pass
    assert (tmp_path / ".ltgc" / FILE).exists()
    assert not (pool.user_folder() / FILE).exists()


def test_other_code_of_the_embedded_endpoint_is_asked_anew_and_so_is_a_fresh_clone(script, tmp_path, monkeypatch):
    from embedded import endpoint

    monkeypatch.setattr(endpoint, "running", lambda: nullcontext(script.base_url))
    monkeypatch.delenv("DVC_ROOT", raising=False)
    clones = [tmp_path / "mine", tmp_path / "fresh"]
    section = chat_section(script, base_url="embedded")

    def calls(clone: Path, digest: str) -> int:
        clone.mkdir(exist_ok=True)
        monkeypatch.chdir(clone)
        monkeypatch.setattr(server, "embedded_digest", lambda: digest)
        before = script.calls
        ask(section, clone / "store", "a")
        return script.calls - before

    runs = [(0, "before"), (0, "before"), (0, "after"), (0, "before"), (1, "before")]
    assert [calls(clones[clone], digest) for clone, digest in runs] == [1, 0, 1, 0, 1]


def test_a_failed_run_leaves_the_shared_store_as_it_was_and_the_next_one_has_its_replies(script, tmp_path):
    section = chat_section(script, concurrency=1)
    ask(section, tmp_path, "a")
    before = contents(tmp_path)
    script.replies = ["x", Fault(401)]
    with pytest.raises(LTGCError):
        ask(section, tmp_path, "a", "b", "c")
    assert contents(tmp_path) == before
    script.chat = lambda request: "y"
    assert [reply.text for reply in ask(section, tmp_path, "b", "c")] == ["x", "y"]


def test_what_comes_after_closing_is_cancelled_and_nobody_waits_for_it(tmp_path):
    """An error ends a stage while other calls are under way: they settle when the pool is closed already."""
    database = Database(tmp_path, "pool")
    database.close()
    assert database.hand_in(lambda db: db.execute("SELECT 1")).cancelled()
