"""Clients that misbehave: the server goes on, answers with the right status and gets its pages back."""
import json
import re
import signal
import socket
import subprocess
import sys
import time
import unittest

from server import SLOW, STORIES, Case, Server, StoriesCase, chat_model, in_threads, main

LONG = {"messages": [{"role": "user", "content": "go on"}], "max_tokens": 200, "ignore_eos": True, "temperature": 0}


def http_bytes(body, path="/v1/chat/completions", headers=""):
    body = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def read_all(sock):
    """All bytes until the server closes; a reset ends them too."""
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def status(sock):
    head = b""
    try:
        while b"\r\n" not in head:
            part = sock.recv(4096)
            if not part:
                return None
            head += part
    except ConnectionResetError:
        return None
    return int(head.split()[1])


class Wire(Case):
    """Bytes that are not quite HTTP."""
    options = ("--max-body", "64", "--idle-timeout", "2")

    def tearDown(self):
        self.assertEqual(self.server.chat("still there", max_tokens=2).status, 200)
        self.server.wait_idle()

    def send(self, data):
        with self.server.socket() as sock:
            try:
                sock.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass
            return status(sock)

    def test_garbage_is_refused(self):
        for data in (b"\r\n\r\n\r\n", b"GET\r\n\r\n", b"\x00\x01\x02\xff" * 100 + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                     b"GET / HTTP/1.1\r\nno colon here\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                     b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
            self.assertIn(self.send(data), (None, 400, 404, 405, 413, 505), data[:40])

    def test_long_headers_are_refused(self):
        self.assertIn(self.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * (10 << 20) + b"\r\n\r\n"), (None, 431))
        self.assertIn(self.send(b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"), (None, 414, 431))
        self.assertEqual(self.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 40000 + b"\r\n\r\n"), 431)
        many = b"".join(b"X-%d: y\r\n" % i for i in range(100000))
        self.assertIn(self.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n"), (None, 431))

    def test_headers_beyond_the_limit_get_an_error_as_clients_expect_it(self):
        for path, size in (("/version", 20000), ("/version?" + "a" * 20000, 1)):
            self.refused(self.server.get(path, headers={"X-Long": "a" * size}), 431, says="16384")
        self.refused(self.server.post("/v1/completions", {"prompt": "x"}, headers={"X-Long": "a" * 20000}), 431)
        self.assertEqual(self.server.get("/version", headers={"X-Long": "a" * 15000}).status, 200)

    def test_long_bodies_are_refused(self):
        for size in (70 << 10, 3 << 20):
            self.refused(self.server.post("/v1/completions", b"x" * size), 413)
        chunks = b"".join(b"4000\r\n" + b"x" * 0x4000 + b"\r\n" for _ in range(10))
        self.assertEqual(self.send(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks +
                                   b"0\r\n\r\n"), 413)
        self.assertEqual(self.send(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"), 413)

    def test_conflicting_lengths_are_refused(self):
        body = b'{"prompt": "x", "max_tokens": 1}'
        for headers in (b"Content-Length: 5\r\nContent-Length: %d\r\n" % len(body),
                        b"Content-Length: %d\r\nContent-Length: %d\r\n" % (len(body), len(body)),
                        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(body)):
            self.assertEqual(self.send(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n" + body), 400)

    def test_chunked_bodies_are_read(self):
        body = b'{"prompt": "x", "max_tokens": 1}'
        data = b"".join(b"%x\r\n%s\r\n" % (1, body[i:i + 1]) for i in range(len(body)))
        self.assertEqual(self.send(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + data +
                                   b"0\r\n\r\n"), 200)

    def test_half_sent_requests_time_out(self):
        whole = http_bytes(LONG)
        for part in (b"", b"P", whole[:40], whole[:-5]):
            with self.server.socket() as sock:
                sock.sendall(part)
                start = time.time()
                read_all(sock)
                self.assertLess(time.time() - start, 6)

    def test_a_client_that_closes_its_sending_half_gets_its_answer(self):
        for data in (b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /version HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n"):
            with self.server.socket() as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                start = time.time()
                self.assertEqual(read_all(sock).count(b"HTTP/1.1 200"), data.count(b"GET"))
                self.assertLess(time.time() - start, 1)

    def test_pipelined_requests_are_answered_in_order(self):
        bodies = [{"prompt": "x" * (i + 1), "max_tokens": 3, "stream": i % 2 == 1} for i in range(8)]
        data = b"".join(http_bytes(b, "/v1/completions") for b in bodies[:-1])
        data += http_bytes(bodies[-1], "/v1/completions", "Connection: close\r\n")
        with self.server.socket() as sock:
            sock.sendall(data)
            answer = read_all(sock)
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 8)
        self.assertEqual(answer.count(b"data: [DONE]"), 4)

    def test_old_clients_get_an_answer(self):
        body = b'{"prompt": "x", "max_tokens": 3, "stream": true}'
        with self.server.socket() as sock:
            sock.sendall(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            answer = read_all(sock)
        self.assertTrue(answer.endswith(b"data: [DONE]\n\n"), answer[-100:])
        self.assertNotIn(b"chunked", answer.split(b"\r\n\r\n")[0])


class Leaving(StoriesCase):
    """Clients that go away, in every state of their request."""
    options = ("--max-sequences", "4", "--max-queue", "64", "--context", "512", "--max-buffer", "512", "--keepalive", "1")
    body = {"prompt": "Once upon a time", "max_tokens": 500, "ignore_eos": True, "temperature": 0}

    def lost(self):
        return self.server.metric("nanovllm:clients_lost_total")

    def hang_up(self, fields, wait, close):
        before = self.lost()
        sock = self.server.socket()
        sock.sendall(http_bytes({**self.body, **fields}, "/v1/completions"))
        wait(sock)
        close(sock)
        start = time.time()
        self.server.wait_for(lambda: self.lost() > before)
        noticed = time.time() - start
        sock.close()
        self.server.wait_idle()
        return noticed

    def test_is_noticed_within_100_ms(self):
        def running(_):
            self.server.wait_for(lambda: self.server.metric("vllm:num_requests_running") > 0)

        def first_bytes(sock):
            head = b""
            while b"data:" not in head:
                part = sock.recv(4096)
                self.assertTrue(part, head)
                head += part

        def reset(sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()

        def close(sock):
            sock.close()
        for how in (close, reset):
            for name, fields, wait in (("waiting for the whole answer", {"n": 4}, running),
                                       ("streaming", {"stream": True, "n": 4}, first_bytes),
                                       ("queued", {"n": 16}, running)):
                with self.subTest(name):
                    self.assertLess(self.hang_up(fields, wait, how), 0.1 * SLOW)

    def test_right_after_the_request(self):
        for _ in range(50):
            with self.server.socket() as sock:
                sock.sendall(http_bytes(self.body, "/v1/completions"))
        self.server.wait_idle()

    def test_killed_processes_leave_nothing_behind(self):
        """100 streams of 10 processes, of which 5 are killed."""
        request = http_bytes({**self.body, "stream": True, "max_tokens": 200}, "/v1/completions", "Connection: close\r\n")
        script = f"""if True:
            import socket
            sockets = [socket.create_connection({(self.server.host, self.server.port)!r}) for _ in range(10)]
            for s in sockets: s.sendall({request!r})
            print(sockets[0].recv(10), flush=True)
            for s in sockets:
                last = b""
                while part := s.recv(65536): last = (last + part)[-30:]
                assert last.endswith(b"data: [DONE]\\n\\n\\r\\n0\\r\\n\\r\\n"), last"""
        with Server(STORIES, max_sequences=16) as server:
            script = script.replace(str(self.server.port), str(server.port))
            clients = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(10)]
            for i, client in enumerate(clients):
                client.stdout.readline()
                if i % 2:
                    client.send_signal(signal.SIGKILL)
            for i, client in enumerate(clients):
                self.assertEqual(client.wait(120), -9 if i % 2 else 0)
                client.stdout.close()
            server.wait_idle()

    def test_slow_readers_are_dropped_and_others_go_on(self):
        """One who reads nothing of long answers; its socket's buffers fill, then ours, then it is cancelled."""
        before = self.lost()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((self.server.host, self.server.port))
        fields = {"stream": True, "n": 64, "logprobs": 20, "max_tokens": 480}
        sock.sendall(http_bytes({**self.body, **fields}, "/v1/completions"))
        answers = []
        in_threads([lambda: answers.append(self.server.complete("Once", max_tokens=40).status)] * 4)
        self.assertEqual(answers, [200] * 4)
        self.server.wait_for(lambda: self.lost() > before, 60 * SLOW)
        self.assertIn("reads too slowly", self.server.stderr())
        sock.close()
        self.server.wait_idle()

    def test_full_queue_is_429_with_retry_after(self):
        answer = self.server.complete("x", n=100, max_tokens=100)
        self.refused(answer, 429, code="queue_full")
        self.assertTrue(int(answer.headers["Retry-After"]) >= 1)
        self.server.wait_idle()

    def test_silent_streams_get_comments(self):
        """Behind a full batch of long answers the first token of a stream is late."""
        sock = self.server.socket()
        sock.sendall(http_bytes({**self.body, "n": 60}, "/v1/completions"))
        self.server.wait_for(lambda: self.server.metric("vllm:num_requests_running") > 0)
        with self.server.socket() as late:
            late.sendall(http_bytes({**self.body, "stream": True, "max_tokens": 1}, "/v1/completions", "Connection: close\r\n"))
            start = time.time()
            answer = read_all(late)
            if time.time() - start > 1.5:
                self.assertIn(b": keepalive\n\n", answer)
            self.assertIn(b"data: [DONE]", answer)
        sock.close()
        self.server.wait_idle()


class Bounds(StoriesCase):
    """What one client can make the server hold."""
    options = ("--context", "512", "--max-answer", "64", "--max-buffer", "4096", "--idle-timeout", "2")
    much = {"prompt": "Once upon a time", "n": 16, "max_tokens": 400, "ignore_eos": True, "temperature": 0, "logprobs": 20}

    def tearDown(self):
        self.server.wait_idle()

    def test_whole_answers_beyond_the_bound_are_refused_while_they_are_made(self):
        errors = self.server.metric("vllm:request_success_total", "error")
        made = self.server.metric("vllm:generation_tokens_total")
        self.refused(self.server.post("/v1/completions", self.much), 400, code="answer_too_long", says="65536 bytes")
        self.server.wait_idle()
        self.assertEqual(self.server.metric("vllm:request_success_total", "error"), errors + 16)
        self.assertLess(self.server.metric("vllm:generation_tokens_total") - made, 16 * 200)
        self.assertEqual(self.server.post("/v1/completions", {**self.much, "n": 2, "max_tokens": 8}).status, 200)

    def test_streams_hold_only_what_is_unsent(self):
        chunks = list(self.server.stream("/v1/completions", {**self.much, "n": 4}))
        self.assertGreater(sum(len(json.dumps(c)) for c in chunks), 4 * 65536)
        self.assertNotIn("error", chunks[-1])

    def test_chunks_of_a_stream_are_bounded_too(self):
        """The log-probabilities of an echoed prompt come in one chunk."""
        prompt = self.server.post("/tokenize", {"prompt": "the dog saw a cat. " * 60}).json["tokens"][:480]
        chunks = list(self.server.stream("/v1/completions", {**self.much, "prompt": prompt, "echo": True, "max_tokens": 8}))
        self.assertEqual(chunks[-1]["error"]["code"], "answer_too_long")

    def test_echo_counts(self):
        answer = self.server.complete("the dog saw a cat. " * 60, n=128, echo=True, max_tokens=1)
        self.refused(answer, 400, code="answer_too_long")

    def test_answers_that_nobody_fetches_are_dropped(self):
        """Some 4 MiB are more than the sockets' buffers hold: the rest goes with the connection."""
        body = json.dumps({"prompt": "x" * (1 << 20)}).encode()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((self.server.host, self.server.port))
            sock.sendall(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(5)
            head, rest = read_all(sock).split(b"\r\n\r\n", 1)
        length = int(re.search(rb"Content-Length: (\d+)", head)[1])
        self.assertGreater(length, 3 << 20)
        self.assertLess(len(rest), length)


class Limits(unittest.TestCase):
    def test_connections_beyond_the_limit_get_503(self):
        import tempfile
        with tempfile.TemporaryDirectory() as folder, Server(chat_model(folder), "--max-connections", "8") as server:
            idle = [server.socket() for _ in range(8)]
            server.wait_for(lambda: server.get("/health").status == 503)
            answer = server.get("/v1/models")
            self.assertEqual(answer.status, 503)
            self.assertTrue(answer.headers["Retry-After"])
            for sock in idle:
                sock.close()
            server.wait_for(lambda: server.get("/health").status == 200)


if __name__ == "__main__":
    main()
