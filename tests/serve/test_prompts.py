"""Long prompts are tokenized beside the streams, not between their tokens: what others notice, and what happens to
those that are left, too many or wrong."""
import json
import signal
import threading
import time
import unittest

from server import SLOW, STORIES, Server, StoriesCase, main

STORY = {"prompt": "Once upon a time", "max_tokens": 200, "ignore_eos": True, "temperature": 0}


class Streams:
    """Asks for one stream after the other on a thread; `gaps`: (when it ended, how long) between two chunks."""

    def __init__(self, server):
        self.server, self.gaps, self.stopping, self.error = server, [], False, None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            last = time.monotonic()
            while not self.stopping:
                for _ in self.server.stream("/v1/completions", STORY):
                    now = time.monotonic()
                    self.gaps.append((now, now - last))
                    last = now
        except Exception as error:  # noqa: BLE001
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.thread.join()
        if self.error:
            raise self.error

    def longest(self, start, end):
        return max((gap for when, gap in self.gaps if when > start and when - gap < end), default=end - start)


def padded(fields):
    """The same request in a long body."""
    return json.dumps(fields) + " " * 5000


class Beside(StoriesCase):
    options = ("--max-queue", "4", "--context", "512")
    size = 15 // SLOW  # MiB; the longest that --max-body lets in is 16
    long = json.dumps({"prompt": "a" * (size << 20)})

    def tearDown(self):
        self.assertEqual(self.server.complete("still there", max_tokens=2).status, 200)
        self.server.wait_idle()

    def send_tokenize(self, body):
        sock = self.server.socket()
        sock.sendall(f"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        return sock

    def test_streams_go_on_while_a_long_prompt_is_tokenized(self):
        with Streams(self.server) as streams:
            self.server.wait_for(lambda: len(streams.gaps) > 100)
            calm = streams.longest(0, time.monotonic())
            start = time.monotonic()
            answer = self.server.post("/tokenize", self.long)
            end = time.monotonic()
        self.assertEqual(answer.status, 200)
        gap = streams.longest(start, end)
        print(f"\n{self.size} MiB were tokenized in {end - start:.2f} s; longest gap in a stream {gap * 1e3:.0f} ms, before "
              f"{calm * 1e3:.0f} ms", flush=True)
        self.assertLess(gap, (end - start) / 4)

    def test_long_bodies_get_the_same_answers_and_errors(self):
        ids = [1, 400, 401]
        for path, fields in (("/v1/completions", STORY), ("/v1/completions", {**STORY, "prompt": [ids, ids], "n": 2, "echo": True}),
                             ("/tokenize", {"prompt": "Once upon a time"}), ("/detokenize", {"tokens": ids}),
                             ("/v1/completions", {**STORY, "model": "other"}), ("/v1/completions", {**STORY, "prompt": ids * 200}),
                             ("/v1/completions", {**STORY, "prompt": [9999]}), ("/v1/completions", {**STORY, "n": 6, "max_tokens": 0}),
                             ("/v1/chat/completions", {"messages": []}), ("/tokenize", {}), ("/detokenize", {"tokens": "x"})):
            short, long = (self.server.post(path, body) for body in (json.dumps(fields), padded(fields)))
            self.assertEqual(short.status, long.status, (fields, long.text))
            if short.status == 200 and "choices" in short.json:
                self.assertEqual(short.json["choices"], long.json["choices"])
            else:
                self.assertEqual(short.json, long.json)
        self.refused(self.server.post("/v1/completions", "{" + " " * 5000), 400, code="invalid_json")
        self.assertEqual("".join(c["choices"][0]["text"] for c in self.server.stream("/v1/completions", {**STORY, "user": "x" * 5000})),
                         self.server.complete(**STORY).json["choices"][0]["text"])

    def test_requests_of_one_connection_are_answered_in_order(self):
        bodies = [padded({"prompt": "ab" * i}) if i % 2 else json.dumps({"prompt": "ab" * i}) for i in range(1, 9)]
        with self.server.socket() as sock:
            for i, body in enumerate(bodies):
                end = "Connection: close\r\n" if i + 1 == len(bodies) else ""
                sock.sendall(f"POST /tokenize HTTP/1.1\r\nHost: x\r\n{end}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            data = b"".join(iter(lambda: sock.recv(65536), b""))
        got = [json.loads(part.split(b"\r\n\r\n", 1)[1]) for part in data.split(b"HTTP/1.1 ")[1:]]
        want = [self.server.post("/tokenize", body).json for body in bodies]
        self.assertEqual(got, want)

    def test_clients_that_leave_are_noticed_and_make_room(self):
        """The first is being tokenized, the others wait behind it; too many are refused."""
        lost = self.server.metric("nanovllm:clients_lost_total")
        socks = []
        for _ in range(5):
            socks.append(self.send_tokenize(padded({"prompt": "x"}) if socks else self.long))
            self.server.wait_for(lambda: self.server.metric("nanovllm:num_requests_preparing") == len(socks))
        refused = self.server.post("/tokenize", padded({"prompt": "x"}))
        self.refused(refused, 429, code="queue_full")
        self.assertTrue(refused.headers["Retry-After"])
        self.assertEqual(self.server.post("/tokenize", {"prompt": "x"}).status, 200)
        for sock in socks:
            start = time.monotonic()
            sock.close()
            lost += 1
            self.server.wait_for(lambda: self.server.metric("nanovllm:clients_lost_total") == lost)
            self.assertLess(time.monotonic() - start, 0.1 * SLOW)
        self.assertEqual(self.server.post("/tokenize", padded({"prompt": "x"})).status, 200)
        self.assertEqual(self.server.metric("nanovllm:num_requests_preparing"), 0)

    def test_long_prompts_are_submitted_in_their_order(self):
        """The log has them as they were answered; one sequence at a time is."""
        threads, names = [], [f"number-{i}" for i in range(8)]
        with Server(STORIES, "--context", "512", "--log-requests", max_sequences=1) as server:
            threads.append(threading.Thread(target=lambda: server.post("/tokenize", self.long)))
            threads[0].start()
            for name in names:
                server.wait_for(lambda: server.metric("nanovllm:num_requests_preparing") == len(threads))
                threads.append(threading.Thread(target=server.post, args=("/v1/completions", padded(STORY)),
                                                kwargs={"headers": {"x-request-id": name}}))
                threads[-1].start()
            for thread in threads:
                thread.join()
            server.wait_for(lambda: server.stderr().count("/v1/completions") == len(names))
            lines = [line for line in server.stderr().splitlines() if "/v1/completions" in line]
        self.assertEqual([line.split()[1] for line in lines], names)
        self.assertTrue(all(" 200 " in line for line in lines), lines)


@unittest.skipUnless(STORIES.exists(), f"needs {STORIES}")
class Ending(unittest.TestCase):
    def begin(self):
        server = Server(STORIES)
        socks = []
        for _ in range(2):
            body = json.dumps({"prompt": "a" * (4 << 20)}).encode()
            socks.append(server.socket())
            socks[-1].sendall(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.1)
        return server, socks

    def test_sigterm_waits_for_prompts_in_the_queue(self):
        server, socks = self.begin()
        server.process.send_signal(signal.SIGTERM)
        for sock in socks:
            self.assertTrue(sock.recv(100).startswith(b"HTTP/1.1 200"))
            while sock.recv(1 << 20):
                pass
            sock.close()
        self.assertEqual(server.process.wait(30), 0)
        server.__exit__(None, None, None)

    def test_second_signal_drops_them(self):
        server, socks = self.begin()
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: "stopping" in server.stderr())
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(30), 0)
        self.assertEqual(socks[1].recv(100), b"")
        for sock in socks:
            sock.close()
        server.__exit__(None, None, None)


if __name__ == "__main__":
    main()
