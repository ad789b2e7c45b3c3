"""What the tests of the server share: starting and stopping it, asking it, and small models to run it on.

CTest passes paths in NVLLM_TEST_*; without them the release build is used. Exit code 77: everything was skipped.
"""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cli"))
from program import FIXTURES, PROGRAM, SHARED, SOURCE, chat_model, main, run  # noqa: E402,F401

STORIES = SHARED / "stories260k/hf"
DEMO = SOURCE / "models/demo"
VENV = SOURCE / "build/venv/bin/python"
# ASan's leak check runs at exit and fails the program: a server that ends with 0 has not leaked.
SLOW = 5 if os.environ.get("NVLLM_TEST_SANITIZED") else 1


class Server:
    """`nano-vllm serve` on a free port; a context manager that stops it and checks its exit code."""

    def __init__(self, model, *options, wait=True, env=None, max_sequences=32):
        command = [PROGRAM, "serve", "-m", str(model), "--port", "0", "--max-sequences", str(max_sequences),
                   *map(str, options)]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log,
                                        env={**os.environ, **(env or {})})
        line = self.process.stdout.readline().decode()
        found = re.match(r"listening on http://(.*):(\d+)\n", line)
        if not found:
            self.process.wait(10)
            raise RuntimeError(f"the server did not start: {line!r} {self.stderr()}")
        self.host, self.port = found[1], int(found[2])
        self.url = f"http://{self.host}:{self.port}"
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds=60):
        end = time.time() + seconds
        while self.get("/health").status != 200:
            assert time.time() < end, "the model was not loaded in time"
            time.sleep(0.01)

    def stderr(self):
        """Read where it lies: a seek would move the place at which the server writes, too."""
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode(errors="replace")

    def stop(self, number=signal.SIGTERM, seconds=60):
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(seconds)
        self.process.stdout.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        code = self.stop()
        text = self.stderr()
        self.log.close()
        if kind is None:
            assert code == 0, f"exit code {code}: {text}"

    def connect(self, timeout=60):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def socket(self, timeout=60):
        return socket.create_connection((self.host, self.port), timeout=timeout)

    def ask(self, method, path, body=None, headers=None, timeout=120):
        connection = self.connect(timeout)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def post(self, path, body, **options):
        return self.ask("POST", path, body, **options)

    def chat(self, text, **fields):
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields})

    def complete(self, prompt, **fields):
        return self.post("/v1/completions", {"prompt": prompt, **fields})

    def stream(self, path, body, timeout=120):
        """The chunks of a stream, as they come; checks its framing."""
        connection = self.connect(timeout)
        connection.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.getheader("Content-Type").startswith("text/event-stream")
        done = False
        for line in response:
            line = line.decode().rstrip("\n")
            if line.startswith("data: "):
                assert not done, "data after [DONE]"
                if line == "data: [DONE]":
                    done = True
                else:
                    yield json.loads(line[6:])
            else:
                assert line == "" or line.startswith(":"), line
        connection.close()
        assert done, "the stream ended without [DONE]"

    def metric(self, name, label=""):
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(name + "{") and label in line:
                return float(line.split()[-1])
        raise KeyError(name)

    def wait_for(self, condition, seconds=20):
        end = time.time() + seconds
        while not condition():
            assert time.time() < end, "did not happen in time"
            time.sleep(0.005)

    def is_idle(self):
        return self.metric("vllm:num_requests_running") == 0 and self.metric("vllm:num_requests_waiting") == 0

    def wait_idle(self, seconds=30):
        """All requests have ended and their pages are back. Looked at twice: what was just submitted and cancelled
        may not be counted yet."""
        for _ in range(2):
            self.wait_for(self.is_idle, seconds)
            time.sleep(0.05)
        self.wait_for(lambda: self.metric("vllm:kv_cache_usage_perc") == 0, seconds)

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


class Case(unittest.TestCase):
    """One server for all tests of a class, on `model()` with `options`."""
    options = ()
    server = None

    @classmethod
    def model(cls):
        return chat_model(cls.folder)

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.folder = Path(holder.name)
        cls.server = Server(cls.model(), *cls.options)

    @classmethod
    def tearDownClass(cls):
        if cls.server:
            cls.server.__exit__(None, None, None)

    def refused(self, answer, status, param=None, code=None, says=""):
        self.assertEqual(answer.status, status, answer.text)
        error = answer.error
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertEqual(error["param"], param, error)
        if code:
            self.assertEqual(error["code"], code)
        self.assertIn(says, error["message"])
        return error


class StoriesCase(Case):
    """On the real trained model, where its files are."""

    @classmethod
    def model(cls):
        return STORIES

    @classmethod
    def setUpClass(cls):
        if not STORIES.exists():
            raise unittest.SkipTest(f"needs {STORIES}")
        super().setUpClass()


def text_of(chunks, kind="chat", index=0):
    """What the chunks of one choice say together."""
    parts = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join((p["delta"].get("content") or "") if kind == "chat" else p["text"] for p in parts)


def in_threads(jobs):
    """Runs the functions at once; the first exception is raised here."""
    errors = []

    def guarded(job):
        try:
            job()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)
    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
