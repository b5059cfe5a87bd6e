"""Buckets: objects made once, read whole, and errors that say what to do without saying a key."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from s3_server import KEY, SECRET, S3Server

from embedstore.errors import BucketError, InputError, MissingDependencyError, OfflineError
from embedstore.storage import bucket as bucket_module
from embedstore.storage import bucket_access
from embedstore.storage.bucket import Bucket, is_url

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again as often, without the pauses."""
    pauses = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=2), "base": 2}
    monkeypatch.setitem(bucket_access.RETRIES, "backoff", pauses)


@pytest.fixture
def bucket(s3: S3Server, at_once: None) -> Bucket:
    """An empty place in a bucket of its own."""
    return Bucket(f"{s3.bucket()}/my photos/cats.store")


def content(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def race(url: str, names: list[str], process: int) -> list[tuple[str, int]]:
    """Try to make each of these objects, by four threads; return those made, each with the number of its maker."""
    place, made = Bucket(url), []
    gate = threading.Barrier(4)

    def make_all(writer: int) -> None:
        for name in names:
            gate.wait()
            try:
                place.create(name, f"writer {writer}".encode() * 50)
                made.append((name, writer))
            except FileExistsError:
                pass

    place.write(f"here/{process}", b"")
    while len(place.list("here")) < 2:
        time.sleep(0.01)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(make_all, range(process * 4, process * 4 + 4)))
    return made


def test_of_several_writers_one_makes_an_object(s3: S3Server, bucket: Bucket) -> None:
    """Two processes of four threads race for 40 names: each is made once, and holds what its maker wrote."""
    names = [f"_delta_log/{number:020}.json" for number in range(40)]
    with ProcessPoolExecutor(2, mp_context=SPAWN) as processes:
        found = processes.map(race, [bucket.url] * 2, [names] * 2, [0, 1])
        made = [pair for pairs in found for pair in pairs]
    assert Counter(name for name, _ in made) == Counter(names)
    assert s3.counts()["create"] >= 8 * len(names)
    assert all(bucket.read(name) == f"writer {writer}".encode() * 50 for name, writer in made)


def test_what_is_put_is_read_and_listed_by_its_name(bucket: Bucket) -> None:
    """Names relative to the place, ascending, with spaces and letters of any kind; what is not there is said."""
    for name in ("images/b c.json", "images/_delta_log/1.json", "images/ü%20#.json", "store.json", "imagesque/x"):
        bucket.write(name, name.encode())
    assert [one.name for one in bucket.list()] == sorted(["images/b c.json", "images/_delta_log/1.json", "store.json",
        "images/ü%20#.json", "imagesque/x"])  # fmt: skip
    images = bucket / "images"
    assert [(one.name, one.size) for one in images.list()] == [
        ("_delta_log/1.json", 24), ("b c.json", 15), ("ü%20#.json", 18)
    ]  # fmt: skip
    assert [one.name for one in images.list("_delta_log")] == ["_delta_log/1.json"]
    assert [one.name for one in images.list(after="b c.json")] == ["ü%20#.json"]
    assert abs(images.list()[0].modified - time.time()) < 600
    assert images.read("ü%20#.json").decode() == "images/ü%20#.json"
    assert images.size("b c.json") == 15
    images.delete(["b c.json", "never.json"])
    images.delete([])
    with pytest.raises(FileNotFoundError, match=r"my photos/cats.store/images/b c.json"):
        images.read("b c.json")
    assert images.list("nothing") == []


def test_a_list_of_many_pages_is_whole(s3: S3Server, bucket: Bucket) -> None:
    """Seven names, two to a page, also from a name on."""
    for number in range(7):
        bucket.write(f"log/{number}", b"")
    s3.fail("pages", "list", times=100)
    assert [one.name for one in bucket.list("log")] == [f"log/{number}" for number in range(7)]
    assert [one.name for one in bucket.list("log", after="log/1")] == [f"log/{number}" for number in range(2, 7)]
    assert s3.counts()["list"] >= 6


def test_an_object_is_made_once(bucket: Bucket) -> None:
    """Other bytes find the name taken; the same bytes are taken for one's own, put before without an answer."""
    bucket.create("store.json", b"mine")
    with pytest.raises(FileExistsError, match="somebody else"):
        bucket.create("store.json", b"yours")
    bucket.create("store.json", b"mine")
    assert bucket.read("store.json") == b"mine"


@pytest.mark.parametrize("fault", ["lost", "dropped", "409 ConditionalRequestConflict", "500 InternalError"])
def test_a_conditional_put_is_made_whatever_becomes_of_its_answer(s3: S3Server, bucket: Bucket, fault: str) -> None:
    """An answer lost behind it or a request before it, a service that cannot decide, or fails: it is made once."""
    what = fault if fault in ("lost", "dropped") else "status"
    s3.fail(what, "create", times=2 if what == "status" else 1, status=fault)
    bucket.create("1.json", b"mine")
    assert bucket.read("1.json") == b"mine"
    s3.fail(what, "create", times=2 if what == "status" else 1, status=fault)
    with pytest.raises(FileExistsError):
        bucket.create("1.json", b"yours")
    assert bucket.read("1.json") == b"mine"


def test_a_put_that_stays_without_answer_is_not_called_failed(s3: S3Server, bucket: Bucket) -> None:
    """Carried out while no answer and no reading gets through: the error says that it may have been made."""
    s3.fail("lost", "create", times=100)
    s3.fail("status", "get", times=100)
    with pytest.raises(BucketError) as caught:
        bucket.create("1.json", b"mine")
    assert caught.value.unsettled
    s3.reset()
    assert bucket.read("1.json") == b"mine"


REQUESTS: dict[str, tuple[str, Callable[[Bucket], object]]] = {
    "get": ("get", lambda bucket: bucket.read("there")),
    "range": ("get", lambda bucket: bucket.range("there", 2, 90_000, 100_000)),
    "head": ("head", lambda bucket: bucket.size("there")),
    "list": ("list", lambda bucket: bucket.list()),
    "put": ("put", lambda bucket: bucket.write("new", b"1")),
    "create": ("create", lambda bucket: bucket.create("new", b"1")),
    "delete": ("delete", lambda bucket: bucket.delete(["there"])),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_a_busy_service_is_asked_again_and_in_the_end_named(s3: S3Server, bucket: Bucket, what: str) -> None:
    """503 twice is got over; 503 for ever ends in an error with the address, the answer and what to do."""
    kind, ask = REQUESTS[what]
    bucket.write("there", content(100_000))
    s3.reset()
    s3.fail("status", kind, times=2)
    ask(bucket)
    assert s3.counts()[kind] == 3
    bucket.delete(["new"])
    s3.reset()
    s3.fail("status", kind, times=100)
    with pytest.raises(BucketError, match=r"answered 503 .*, and so on 6 further tries; try again later") as caught:
        ask(bucket)
    assert s3.address in str(caught.value)
    assert caught.value.unsettled
    assert s3.counts()[kind] == 7


def test_how_long_a_dead_service_is_tried() -> None:
    """As long as README says: the pauses between tries come to 10 seconds at most."""
    backoff = bucket_access.RETRIES["backoff"]
    pauses, longest = 0.0, backoff["init_backoff"].total_seconds()
    for _ in range(bucket_access.RETRIES["max_retries"]):
        pauses += longest  # each is drawn between the first and twice the one before
        longest = min(longest * backoff["base"], backoff["max_backoff"].total_seconds())
    assert pauses <= 10


def test_a_closed_port_is_told_from_a_busy_service(
    s3: S3Server, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens: nothing was carried out, and the error names the variable with the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:pa55word@127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(BucketError, match=r"refused the connection; see that AWS_ENDPOINT_URL is right") as caught:
            Bucket("s3://photos/cats.store").create("store.json", b"")
    assert not caught.value.unsettled
    assert "pa55word" not in str(caught.value)


def test_a_service_that_hangs_is_given_up(s3: S3Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as the environment says, which the error names."""
    monkeypatch.setenv("AWS_TIMEOUT", "100ms")
    s3.fail("hold-before", "get", times=100)
    with pytest.raises(BucketError, match=r"did not answer in time.*AWS_TIMEOUT=600s allows more") as caught:
        Bucket(bucket.url).read("there")
    assert caught.value.unsettled


@pytest.mark.parametrize("kind", ["get", "list"])
def test_an_answer_cut_short_is_asked_for_again(s3: S3Server, bucket: Bucket, kind: str) -> None:
    """Half a body is never taken for a whole one."""
    bucket.write("there", content(100_000))
    ask: Callable[[], object] = bucket.list if kind == "list" else lambda: bucket.read("there")
    expected = ask()
    s3.fail("cut", kind)
    assert ask() == expected
    s3.reset()
    s3.fail("cut", kind, times=100)
    with pytest.raises(BucketError, match="broke off in the middle of its answer"):
        ask()


def test_a_file_is_fetched_by_ranges_beside_and_renamed(
    s3: S3Server, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several ranges make the file; of another size, missing, or cut short, it leaves nothing."""
    monkeypatch.setattr(bucket_module, "_RANGE", 30_000)
    data = content(100_000)
    bucket.write("part", data)
    bucket.write("empty", b"")
    s3.reset()
    bucket.download("part", tmp_path / "part", len(data))
    assert s3.counts() == {"get": 4}
    assert (tmp_path / "part").read_bytes() == data
    bucket.download("empty", tmp_path / "empty", 0)
    assert (tmp_path / "empty").read_bytes() == b""
    for size in (len(data) - 1, len(data) + 1, 0):
        with pytest.raises(OSError, match=f"it has 100000 bytes, where {size} were expected"):
            bucket.download("part", tmp_path / "other", size)
    with pytest.raises(FileNotFoundError):
        bucket.download("nothing", tmp_path / "other", 5)
    s3.fail("cut", "get", nth=3, times=100)
    with pytest.raises(BucketError, match="broke off"):
        bucket.download("part", tmp_path / "other", len(data))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "part"]


def test_a_file_read_by_ranges_is_the_file(s3: S3Server, bucket: Bucket) -> None:
    """Any seek and read as of a local file; the last 64 kB come at once."""
    data = content(300_000)
    bucket.write("part", data)
    s3.reset()
    with bucket.open("part", len(data)) as file:
        assert file.seek(-8, os.SEEK_END) == len(data) - 8
        assert file.read() == data[-8:]
        file.seek(-60_000, os.SEEK_END)
        assert file.read(50_000) == data[-60_000:-10_000]
        assert s3.counts() == {"get": 1}
        assert sum(one.answered for one in s3.requests()) == 65_536
        rng = np.random.default_rng(1)
        for start, length in zip(rng.integers(0, 300_100, 30), rng.integers(0, 150_000, 30), strict=True):
            file.seek(int(start))
            assert file.read(int(length)) == data[start : start + length]
        file.seek(7)
        buffer = bytearray(9)
        assert file.readinto(buffer) == 9  # type: ignore[attr-defined]
        assert buffer == data[7:16]


def test_a_large_file_goes_up_in_pieces(
    s3: S3Server, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer lost behind a piece or behind the last word costs nothing; a refusal leaves no object."""
    monkeypatch.setattr(bucket_module, "_MULTIPART", 6_000_000)
    monkeypatch.setattr(bucket_module, "_CHUNK", 5 * 2**20)  # the least that S3 takes
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(content(6_000_001))
    small.write_bytes(content(50_000))
    bucket.upload("small", small)
    assert (s3.counts()["put"], s3.counts()["piece"]) == (1, 0)
    s3.fail("lost", "piece")
    s3.fail("lost", "complete")
    bucket.upload("large", large)
    assert s3.counts()["piece"] >= 3
    assert bucket.read("large") == large.read_bytes()
    assert bucket.read("small") == small.read_bytes()
    s3.fail("status", "piece", nth=2, times=100, status="403 AccessDenied")
    with pytest.raises(BucketError, match="was refused") as caught:
        bucket.upload("refused", large)
    assert not caught.value.unsettled
    assert s3.counts()["abort"] == 1
    assert [one.name for one in bucket.list()] == ["large", "small"]
    with pytest.raises(FileNotFoundError):
        bucket.upload("nothing", tmp_path / "nothing")


@pytest.mark.parametrize("what", REQUESTS)
@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_a_wrong_key_is_said_by_its_variables_and_nothing_else(
    s3: S3Server,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
    wrong: str,
) -> None:
    """The service quotes the key's name and all that was signed: neither reaches message, traceback, log or pickle."""
    kind, ask = REQUESTS[what]
    if wrong == "key":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIWRONG000000000000")
    else:
        s3.fail("status", kind, status="403 SignatureDoesNotMatch")
    mistaken = Bucket(bucket.url)
    with caplog.at_level(logging.DEBUG), pytest.raises(BucketError) as caught:
        ask(mistaken)
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in str(caught.value)
    assert not caught.value.unsettled
    logging.getLogger("embedstore").error("failed", exc_info=caught.value)
    shown = "".join(traceback.format_exception(caught.value, chain=True)) + repr(caught.value) + caplog.text
    shown += repr(mistaken) + repr(vars(mistaken)) + repr(pickle.dumps(mistaken)) + repr(pickle.dumps(caught.value))
    for secret in (KEY, SECRET, "AKIWRONG000000000000", "StringToSign"):
        assert secret not in shown
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


def test_without_a_key_nobody_is_asked(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """No metadata service, which is led to this machine here, is asked where AWS_EC2_METADATA_DISABLED says so.

    A bucket that came from a process that has keys brings none along, and says so once it is used.
    """
    travelling = pickle.dumps(Bucket("s3://photos/cats.store"))
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", s3.address)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    arrived = pickle.loads(travelling)
    with pytest.raises(BucketError, match="no key for s3://photos"):
        arrived.read("store.json")
    with pytest.raises(BucketError, match=r"no key for s3://photos: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Bucket("s3://photos/cats.store").read("store.json")
    assert s3.requests() == []
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    with pytest.raises(BucketError):
        Bucket("s3://photos/cats.store").read("store.json")
    assert {one.name.partition("/")[0] for one in s3.requests()} == {"latest"}  # it would have been asked


def test_what_the_environment_lacks_is_said_before_anything_is_sent(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a key, an address without a scheme, and one without TLS."""
    with monkeypatch.context() as patched:
        patched.delenv("AWS_ALLOW_HTTP")
        with pytest.raises(BucketError, match="is no https:// address; set AWS_ALLOW_HTTP=true"):
            Bucket("s3://photos/cats.store").read("store.json")
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", "s3.example.com")
        with pytest.raises(BucketError, match="what AWS_ENDPOINT_URL says is no address"):
            Bucket("s3://photos/cats.store")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BucketError, match="Missing SecretAccessKey; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Bucket("s3://photos/cats.store")
    assert s3.requests() == []


def test_a_bucket_that_is_not_there_is_no_missing_object(s3: S3Server, bucket: Bucket) -> None:
    """Reading, listing and making say that there is no such bucket; a wrong region says which variable."""
    nowhere = Bucket("s3://nowhere/cats.store")
    for ask in (
        lambda: nowhere.read("x"),
        nowhere.list,
        lambda: nowhere.create("x", b""),
        lambda: nowhere.write("x", b""),
    ):
        with pytest.raises(BucketError, match=r"there is no bucket 'nowhere' at http://127.0.0.1:\d+; make it"):
            ask()
    s3.fail("status", "get", status="301 PermanentRedirect")
    with pytest.raises(BucketError, match="set AWS_REGION"):
        bucket.read("x")


_ASKED = {
    "reading": "bucket.read('x')",
    "a conditional put": "bucket.create('y', b'y')",
    "an upload": "bucket.upload('z', Path(sys.argv[2]))",
}
_ASKING = """
import sys
from pathlib import Path
from embedstore.storage.bucket import Bucket
bucket = Bucket(sys.argv[1])
try:
    {asked}
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name == "nt", reason="there a thread that waits for a lock is not interrupted")
@pytest.mark.parametrize("what", _ASKED)
def test_ctrl_c_need_not_wait_for_an_answer(s3: S3Server, bucket: Bucket, tmp_path: Path, what: str) -> None:
    """What hangs ends with the signal, which obstore would hold back; in a process of its own, as people's do."""
    (tmp_path / "file").write_bytes(b"x")
    s3.fail("hold-before", name="cats.store")
    words = [sys.executable, "-c", _ASKING.format(asked=_ASKED[what]), bucket.url, str(tmp_path / "file")]
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    ) as asking:
        s3.wait_held()
        asking.send_signal(signal.SIGINT)
        said, _ = asking.communicate(timeout=30)
    assert said == "interrupted\n"
    assert s3.held() == 1, "the service still hangs"


def test_a_folder_that_a_console_has_made_is_nothing(s3: S3Server) -> None:
    """It is an object whose name ends in a slash."""
    bucket = s3.bucket()
    s3._send("PUT", f"/{bucket.removeprefix('s3://')}/cats.store/")
    place = Bucket(f"{bucket}/cats.store")
    place.write("a", b"a")
    assert [listed.name for listed in place.list()] == ["a"]


def test_a_service_has_a_clock(bucket: Bucket) -> None:
    """What was made to read it off is gone."""
    assert abs(bucket.now() - time.time()) < 60
    assert bucket.list() == []


def test_a_switched_off_network_is_not_used(s3: S3Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """--offline keeps a bucket from being asked."""
    s3.reset()
    monkeypatch.setenv("EMBEDSTORE_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"reading s3://.*cats.store/x needs the network"):
        bucket.read("x")
    assert s3.requests() == []


def test_what_is_a_place_in_a_bucket() -> None:
    """A URL of a known scheme, and what pathlib makes of one; no path and no address of a web page."""
    assert is_url("s3://photos/cats.store")
    assert is_url(Path("s3://photos/cats.store"))
    assert is_url("abfss://box@account.dfs.core.windows.net/cats.store")
    for other in ("cats.store", "/srv/s3/cats.store", "s3", "s3:", "s3://", "https://x/y", "C:\\s3\\x", "ss3://x/y"):
        assert not is_url(other)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://key:pa55word@photos/cats.store", "takes no user and password; set AWS_ACCESS_KEY_ID"),
        ("s3://key@photos/cats.store", "takes no user and password"),
        ("s3://photos/cats.store?token=pa55word", "takes nothing behind"),
        ("s3://photos//cats.store", "has an empty segment"),
        ("s3://photos/../cats.store", "has an empty segment, or a dot"),
        ("photos/cats.store", "is no place in a bucket; expected s3://BUCKET/PLACE"),
    ],
)
def test_a_url_of_no_use_is_refused(s3: S3Server, url: str, words: str) -> None:
    """With a password, a query, or dots: said without repeating a secret."""
    with pytest.raises(InputError, match=words) as caught:
        Bucket(url)
    assert "pa55word" not in str(caught.value)


def test_one_place_has_one_spelling(s3: S3Server) -> None:
    """Slashes at the end, pathlib's one slash, and a place made from another are one place, also when pickled."""
    places = [Bucket("s3://photos/a/b/"), Bucket(str(Path("s3://photos/a/b"))), Bucket("s3://photos") / "a" / "b"]
    assert {str(place) for place in places} == {"s3://photos/a/b"}
    assert len({*places, *pickle.loads(pickle.dumps(places))}) == 1


def test_a_forked_process_is_told_and_does_not_hang(bucket: Bucket) -> None:
    """obstore's threads do not come along into it."""
    bucket.list()
    context = multiprocessing.get_context("fork")
    answers, ours = context.Pipe(duplex=False)
    process = context.Process(target=_tell_error, args=(bucket, ours))
    process.start()
    assert answers.poll(30)
    assert "before this process was forked" in answers.recv()
    process.join()


def _tell_error(bucket: Bucket, answers: object) -> None:
    try:
        bucket.list()
    except BucketError as error:
        answers.send(str(error))  # type: ignore[attr-defined]


def test_the_extra_is_named_where_it_is_missing(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without obstore, a bucket says what to install."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "embedstore\[s3\]"'):
        Bucket("s3://photos/cats.store")
