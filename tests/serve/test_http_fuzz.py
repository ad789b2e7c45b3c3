"""Valid requests with random damage, from a fixed seed: the server survives every one and gets its pages back.
NVLLM_TEST_FUZZ=20000 is a long run; under ASan it is worth it."""
import json
import os
import random
import select
import time
import unittest

from server import Case, main

ROUNDS = int(os.environ.get("NVLLM_TEST_FUZZ", 1500))
PIECES = [b"\r\n", b"\n", b"\r\n\r\n", b"\0", b"\xff\xfe", b" ", b":", b"%00", b"/", b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n",
          b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Authorization: Bearer x\r\n",
          b"0\r\n\r\n", b"fffffffffffffffff\r\n", b"-1", b"99999999999999999999", b"{", b"[", b'"', b"\\ud800", b"\\u0000", b"null",
          b"HTTP/1.0", b"HTTP/0.9", b"OPTIONS", b"HEAD", b"\xc3\x28", b"1e999", b'"stream": true, ', b'"n": 3, ']


def requests():
    bodies = [("/v1/chat/completions", {"messages": [{"role": "user", "content": "h\u00e9"}], "max_tokens": 3, "stream": True}),
              ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "n": 2, "logprobs": True}),
              ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 2, "echo": True, "logprobs": 2, "stop": ["q"]}),
              ("/v1/completions", {"prompt": [[7, 8]], "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}),
              ("/tokenize", {"prompt": "hello", "return_token_strs": True}), ("/detokenize", {"tokens": [7, 8, 9]})]
    for path, body in bodies:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
        yield head + b"Content-Length: %d\r\n\r\n" % len(data) + data
        yield head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(data) + data + b"\r\n0\r\n\r\n"
    for path in ("/", "/metrics", "/v1/models", "/v1/models/a%20b", "/health?x=1", "/tokenizer_info"):
        yield f"GET {path} HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\nx-request-id: 1\r\n\r\n".encode()


def damage(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            data[at:at + rng.choice((1, 1, 4, 20))] = b""
        elif kind == 1:
            data[at:at] = rng.choice(PIECES)
        elif kind == 2 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 3:
            data[at:at] = bytes(data[at:at + 30]) * rng.choice((1, 2, 50))
        else:
            data[at:] = b"" if rng.random() < 0.5 else data[at:]
    return bytes(data)


class Damaged(Case):
    options = ("--max-header", "8", "--max-body", "16", "--cors", "*")

    def open_files(self):
        return len(os.listdir(f"/proc/{self.server.process.pid}/fd"))

    def test_requests_do_no_harm(self):
        rng = random.Random(20260101)
        self.server.wait_idle()
        files = self.open_files()
        whole = list(requests())
        for i in range(ROUNDS):
            with self.server.socket() as sock:
                data = b"".join(damage(rng, rng.choice(whole)) for _ in range(rng.choice((1, 1, 1, 3))))
                try:
                    for cut in sorted(rng.sample(range(len(data) + 1), min(2, len(data)))) + [len(data)]:
                        sock.sendall(data[:cut])
                        data = data[cut:]
                    if rng.random() < 0.7 and select.select([sock], [], [], 0.003)[0]:
                        sock.recv(65536)
                except (BrokenPipeError, ConnectionResetError):
                    pass
            if i % 100 == 0:
                self.assertIsNone(self.server.process.poll(), self.server.stderr()[-2000:])
        self.assertEqual(self.server.chat("still there", max_tokens=2).status, 200)
        self.server.wait_idle()
        self.server.wait_for(lambda: self.open_files() <= files, 2)
        before = self.server.cpu_seconds()
        time.sleep(1)
        self.assertLessEqual(self.server.cpu_seconds() - before, 0.02)


if __name__ == "__main__":
    main()
