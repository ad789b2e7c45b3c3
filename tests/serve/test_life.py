"""The server as a process: start, idleness, keys, CORS, signals, systemd, and what it costs while nobody asks."""
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from server import PROGRAM, SLOW, STORIES, Case, Server, StoriesCase, chat_model, in_threads, main

STORY = {"prompt": "Once upon a time", "max_tokens": 480, "ignore_eos": True, "temperature": 0}


class Folder(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name)
        (self.folder / "demo-model").mkdir()
        self.model = chat_model(self.folder / "demo-model")


class Start(Folder):
    def test_model_name_is_the_folders_or_the_one_given(self):
        with Server(self.model) as server:
            self.assertEqual(server.get("/v1/models").json["data"][0]["id"], "demo-model")
            self.assertEqual(server.get("/v1/models/demo-model").status, 200)
            self.assertEqual(server.chat("x", model="demo-model", max_tokens=1).json["model"], "demo-model")
            self.assertRegex(server.get("/version").json["version"], r"^\d+\.\d+\.\d+$")
            self.assertEqual(server.host, "127.0.0.1")
        with Server(self.model, "--served-model-name", "org/other", "--host", "127.0.0.2") as server:
            self.assertEqual(server.get("/v1/models/org/other").json["id"], "org/other")
            self.assertEqual(server.host, "127.0.0.2")

    def test_a_model_that_cannot_be_loaded_ends_the_server(self):
        server = Server(self.folder / "nothing", wait=False)
        self.assertEqual(server.process.wait(20), 1)
        self.assertIn("nothing", server.stderr())
        server.process.stdout.close()
        server.log.close()

    def test_a_port_in_use_is_an_error(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            done = subprocess.run([PROGRAM, "serve", "-m", self.model, "--port", str(taken.getsockname()[1])],
                                  capture_output=True, timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"cannot listen", done.stderr)

    def slow_model(self):
        """One whose tokenizer of many tokens takes a moment to read."""
        path = self.model / "tokenizer.json"
        values = json.loads(path.read_text())
        vocabulary = values["model"]["vocab"]
        for i in range(500000):
            vocabulary[f"{i:06}"] = len(vocabulary)
        path.write_text(json.dumps(values))
        return self.model

    def test_health_is_503_until_the_model_is_loaded(self):
        with Server(self.slow_model(), wait=False) as server:
            self.assertEqual(server.get("/health").status, 503)
            answer = server.chat("x")
            self.assertEqual(answer.status, 503)
            self.assertTrue(answer.headers["Retry-After"])
            self.assertEqual(server.get("/metrics").status, 200)
            self.assertEqual(server.get("/").status, 200)
            server.wait_ready()
            self.assertEqual(server.chat("x", max_tokens=1).status, 200)

    def test_a_loader_does_not_hold_the_end(self):
        server = Server(self.slow_model(), wait=False)
        start = time.time()
        self.assertEqual(server.stop(), 0)
        self.assertLess(time.time() - start, 0.5 * SLOW)
        server.__exit__(None, None, None)

    def test_systemd_is_told(self):
        path = self.folder / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            notify.settimeout(20)
            with Server(self.model, env={"NOTIFY_SOCKET": str(path)}):
                self.assertEqual(notify.recv(100), b"READY=1")
            self.assertEqual(notify.recv(100), b"STOPPING=1")
        name = f"nano-vllm-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind("\0" + name)
            notify.settimeout(20)
            with Server(self.model, env={"NOTIFY_SOCKET": "@" + name}):
                self.assertEqual(notify.recv(100), b"READY=1")

    def test_usage_errors(self):
        for options in (["--port", "70000"], ["--kv-memory", "lots"], ["--kv-memory", "0"], ["--max-sequences", "0"]):
            done = subprocess.run([PROGRAM, "serve", "-m", self.model, *options], capture_output=True, timeout=30)
            self.assertEqual(done.returncode, 2, options)
        with Server(self.model, "--kv-memory", "1M") as server:
            self.assertGreater(server.metric("nanovllm:kv_cache_tokens"), 256)


class Keys(Folder):
    def test_keys_guard_every_inference_route(self):
        path = self.folder / "keys"
        path.write_text("# comment\nfrom-file\n\nother\r\n")
        with Server(self.model, "--api-key", "given", "--api-key-file", path, env={"NANO_VLLM_API_KEY": "from-env"}) as server:
            for method, route in (("GET", "/v1/models"), ("GET", "/v1/models/demo-model"), ("POST", "/v1/chat/completions"),
                                  ("POST", "/v1/completions"), ("POST", "/tokenize"), ("POST", "/detokenize"),
                                  ("GET", "/tokenizer_info")):
                for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "},
                                {"Authorization": "Bearer give"}, {"Authorization": "Bearer given2"}, {"Authorization": "given"},
                                {"Authorization": "Bearer # comment"}, {"Authorization": "Basic given"}):
                    answer = server.ask(method, route, "{}" if method == "POST" else None, headers)
                    self.assertEqual(answer.status, 401, (route, headers))
                    self.assertEqual(answer.error["code"], "invalid_api_key")
            for key in ("given", "from-file", "other", "from-env"):
                self.assertEqual(server.get("/v1/models", headers={"Authorization": "Bearer " + key}).status, 200)
            for route in ("/health", "/metrics", "/version", "/"):
                self.assertEqual(server.get(route).status, 200)

    def test_empty_keys_are_refused(self):
        path = self.folder / "keys"
        path.write_text("\n# nothing\n")
        for options in (["--api-key", ""], ["--api-key-file", path], ["--api-key-file", self.folder / "missing"]):
            done = subprocess.run([PROGRAM, "serve", "-m", self.model, "--port", "0", *options], capture_output=True, timeout=30)
            self.assertEqual(done.returncode, 1, options)


class Cors(Folder):
    def test_only_origins_that_were_named(self):
        with Server(self.model, "--cors", "https://a.example", "--cors", "https://b.example") as server:
            for origin, allowed in (("https://b.example", "https://b.example"), ("https://c.example", None)):
                answer = server.get("/v1/models", headers={"Origin": origin})
                self.assertEqual(answer.headers["Access-Control-Allow-Origin"], allowed)
            answer = server.ask("OPTIONS", "/v1/chat/completions", headers={
                "Origin": "https://a.example", "Access-Control-Request-Method": "POST"})
            self.assertEqual(answer.status, 204)
            self.assertIn("Authorization", answer.headers["Access-Control-Allow-Headers"])
            self.assertEqual(server.ask("OPTIONS", "/v1/chat/completions").status, 405)
        with Server(self.model, "--cors", "*", "--api-key", "k") as server:
            answer = server.get("/v1/models", headers={"Origin": "https://x.example"})
            self.assertEqual((answer.status, answer.headers["Access-Control-Allow-Origin"]), (401, "*"))
        with Server(self.model) as server:
            self.assertIsNone(server.get("/health", headers={"Origin": "https://x.example"}).headers["Access-Control-Allow-Origin"])


class Logs(Folder):
    def test_requests_and_prompts_are_logged_only_when_asked(self):
        with Server(self.model, "--device", "cpu") as server:
            server.chat("secret", max_tokens=1)
            self.assertEqual(len(server.stderr().splitlines()), 1)
        with Server(self.model, "--log-requests") as server:
            answer = server.post("/v1/completions", {"prompt": "secret", "max_tokens": 1}, headers={"x-request-id": "my-id.1"})
            self.assertEqual(answer.headers["x-request-id"], "my-id.1")
            server.wait_for(lambda: 'my-id.1 "POST /v1/completions" 200' in server.stderr())
            self.assertNotIn("secret", server.stderr())
            self.assertNotEqual(server.get("/health", headers={"x-request-id": "a b\x7f"}).headers["x-request-id"], "a b\x7f")
        with Server(self.model, "--log-prompts") as server:
            server.chat("sec\nret\x1b", max_tokens=1)
            self.assertIn("sec\\\\nret", server.stderr())


class Metrics(Case):
    NAMES = {"gauge": ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"],
             "counter": ["vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total",
                         "vllm:num_preemptions_total", "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"],
             "histogram": ["vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds",
                           "vllm:e2e_request_latency_seconds", "vllm:request_queue_time_seconds",
                           "vllm:request_prefill_time_seconds", "vllm:request_decode_time_seconds",
                           "vllm:request_prompt_tokens", "vllm:request_generation_tokens", "vllm:iteration_tokens_total"]}

    def test_names_types_and_labels(self):
        text = self.server.get("/metrics").text
        for kind, names in self.NAMES.items():
            for name in names:
                self.assertIn(f"# TYPE {name} {kind}\n", text)
        self.assertIn('vllm:request_success_total{model_name="', text)
        self.assertIn(',finished_reason="length"} ', text)

    def test_figures_are_those_of_the_requests(self):
        names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:time_to_first_token_seconds_count",
                 "vllm:inter_token_latency_seconds_count", "vllm:e2e_request_latency_seconds_count",
                 "vllm:request_prompt_tokens_sum", "vllm:request_generation_tokens_sum")
        before = [self.server.metric(n) for n in names]
        ended = self.server.metric("vllm:request_success_total", 'finished_reason="length"')
        usage = self.server.chat("hello", max_tokens=10, ignore_eos=True).json["usage"]
        prompt = usage["prompt_tokens"]
        got = [self.server.metric(n) - b for n, b in zip(names, before)]
        self.assertEqual(got, [prompt, 10, 1, 9, 1, prompt, 10])
        self.assertEqual(self.server.metric("vllm:request_success_total", 'finished_reason="length"'), ended + 1)
        total = self.server.metric("vllm:iteration_tokens_total_sum")
        self.assertGreaterEqual(total, prompt + 9)
        self.server.wait_idle()


class Idle(Folder):
    def test_costs_nothing_with_a_thousand_connections(self):
        with Server(self.model) as server:
            server.chat("warm", max_tokens=2)
            sockets = [server.socket() for _ in range(1000)]
            for sock in sockets[:500]:  # half of them have been used
                sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            for sock in sockets[:500]:
                self.assertTrue(sock.recv(4096).startswith(b"HTTP/1.1 200"))
            self.assertEqual(server.chat("x", max_tokens=2).status, 200)
            time.sleep(0.2)
            before = server.cpu_seconds()
            time.sleep(2)
            self.assertLessEqual(server.cpu_seconds() - before, 0.01)
            self.assertEqual(server.chat("x", max_tokens=2).status, 200)
            for sock in sockets:
                sock.close()


@unittest.skipUnless(STORIES.exists(), f"needs {STORIES}")
class Signals(unittest.TestCase):
    def begin(self, *options, **fields):
        """A server with a stream under way, and its socket."""
        server = Server(STORIES, "--context", "512", "--device", "reference", *options)
        sock = server.socket()
        body = json.dumps({**STORY, "stream": True, **fields}).encode()
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.assertTrue(sock.recv(100))
        return server, sock

    def rest(self, sock):
        data = b""
        try:
            while part := sock.recv(65536):
                data += part
        except ConnectionResetError:
            pass
        sock.close()
        return data

    def test_sigterm_lets_answers_end_and_takes_no_new_ones(self):
        server, sock = self.begin()
        idle = server.connect()
        idle.request("GET", "/health")
        idle.getresponse().read()
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(lambda: "stopping" in server.stderr())
        idle.request("POST", "/v1/completions", json.dumps(STORY))
        answer = idle.getresponse()
        self.assertEqual(answer.status, 503)
        answer.read()
        with self.assertRaises(ConnectionRefusedError):
            server.socket()
        self.assertTrue(self.rest(sock).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"))
        self.assertEqual(server.process.wait(30), 0)
        idle.close()
        server.__exit__(None, None, None)

    def test_second_signal_stops_at_once(self):
        server, sock = self.begin(n=20)
        server.process.send_signal(signal.SIGINT)
        server.wait_for(lambda: "stopping" in server.stderr())
        start = time.time()
        server.process.send_signal(signal.SIGINT)
        self.assertEqual(server.process.wait(30), 0)
        self.assertLess(time.time() - start, 2 * SLOW)
        self.assertNotIn(b"[DONE]", self.rest(sock))
        server.__exit__(None, None, None)

    def test_drain_has_a_limit(self):
        server, sock = self.begin("--drain-timeout", "1", n=30)
        start = time.time()
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(30), 0)
        self.assertLess(time.time() - start, 3 * SLOW)
        self.rest(sock)
        server.__exit__(None, None, None)

    def test_sigterm_under_load(self):
        """Every client gets either its whole answer, or a plain refusal."""
        server = Server(STORIES)
        results = []

        def client():
            while True:
                try:
                    answer = server.complete("Once upon a time", max_tokens=50)
                except OSError:
                    results.append("refused")
                    return
                results.append(answer.status)
                if answer.status != 200:
                    return
        clients = [threading.Thread(target=client) for _ in range(16)]
        for thread in clients:
            thread.start()
        server.wait_for(lambda: len(results) > 32)
        server.process.send_signal(signal.SIGTERM)
        for thread in clients:
            thread.join(60)
        self.assertEqual(server.process.wait(60), 0)
        self.assertEqual(set(results) - {200, 503, "refused"}, set())
        server.__exit__(None, None, None)


if __name__ == "__main__":
    main()
