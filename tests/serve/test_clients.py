"""Real clients: openai-python, langchain-openai, curl, Prometheus' parser. Those that are not installed are skipped."""
import asyncio
import json
import os
import shutil
import subprocess
import sys
import unittest

from server import PROGRAM, SOURCE, VENV, Case, chat_model, main

if __name__ == "__main__" and VENV.exists() and sys.prefix == sys.base_prefix:
    os.execv(VENV, [str(VENV), *sys.argv])  # where the clients are, if anywhere

try:
    import openai
except ImportError:
    openai = None
try:
    from langchain_openai import ChatOpenAI
except ImportError:
    ChatOpenAI = None
try:
    from prometheus_client.parser import text_string_to_metric_families
except ImportError:
    text_string_to_metric_families = None

HELLO = [{"role": "user", "content": "hello"}]
GREEDY = {"max_tokens": 12, "temperature": 0, "extra_body": {"ignore_eos": True}}


@unittest.skipUnless(openai, "needs the openai package")
class OpenAI(Case):
    options = ("--api-key", "sesame", "--max-queue", "8", "--max-body", "64")

    def setUp(self):
        self.client = openai.OpenAI(base_url=self.server.url + "/v1", api_key="sesame", max_retries=0)
        self.addCleanup(self.client.close)
        self.name = self.client.models.list().data[0].id

    def chat(self, **fields):
        return self.client.chat.completions.create(**{"model": self.name, "messages": HELLO, **GREEDY, **fields})

    def test_models(self):
        self.assertEqual(self.client.models.retrieve(self.name).id, self.name)

    def test_chat_and_its_stream(self):
        whole = self.chat()
        text = whole.choices[0].message.content
        self.assertEqual(whole.usage.completion_tokens, 12)
        self.assertEqual(whole.usage.prompt_tokens_details.cached_tokens, 0)
        parts, usage = [], None
        for chunk in self.chat(stream=True, stream_options={"include_usage": True}):
            parts += [c.delta.content or "" for c in chunk.choices]
            usage = chunk.usage or usage
        self.assertEqual("".join(parts), text)
        self.assertEqual(usage.completion_tokens, 12)

    def test_choices_logprobs_and_stop(self):
        many = self.chat(n=3, temperature=1, seed=4, logprobs=True, top_logprobs=2)
        self.assertEqual([c.index for c in many.choices], [0, 1, 2])
        self.assertEqual(len(many.choices[1].logprobs.content), 12)
        self.assertEqual(len(many.choices[1].logprobs.content[0].top_logprobs), 2)
        text = self.chat().choices[0].message.content
        stopped = self.chat(stop=[text[3:5]]).choices[0]
        self.assertEqual((stopped.message.content, stopped.finish_reason), (text[:text.index(text[3:5])], "stop"))

    def test_completions(self):
        got = self.client.completions.create(model=self.name, prompt=["abc", "xyz"], echo=True, logprobs=1, **GREEDY)
        self.assertEqual(len(got.choices), 2)
        self.assertIsNone(got.choices[0].logprobs.token_logprobs[0])
        text = "".join(c.choices[0].text for c in self.client.completions.create(model=self.name, prompt="abc", stream=True,
                                                                                 **GREEDY))
        self.assertEqual("abc" + text, got.choices[0].text)

    def test_errors_are_its_exception_classes(self):
        def client(key):
            made = openai.OpenAI(base_url=self.server.url + "/v1", api_key=key, max_retries=0)
            self.addCleanup(made.close)
            return made
        with self.assertRaises(openai.AuthenticationError):
            client("wrong").models.list()
        with self.assertRaises(openai.NotFoundError) as caught:
            self.chat(model="gpt-4")
        self.assertEqual(caught.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(temperature=-1)
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(messages=[{"role": "user", "content": "x" * 5000}])
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(tools=[{"type": "function", "function": {"name": "f"}}])
        self.assertEqual(caught.exception.param, "tools")
        with self.assertRaises(openai.RateLimitError):
            self.chat(n=100)
        with self.assertRaises(openai.APIStatusError) as caught:
            self.chat(messages=[{"role": "user", "content": "x" * 100000}])
        self.assertEqual(caught.exception.status_code, 413)

    def test_async_client(self):
        async def ask():
            async with openai.AsyncOpenAI(base_url=self.server.url + "/v1", api_key="sesame") as client:
                return await asyncio.gather(*(client.chat.completions.create(model=self.name, messages=HELLO, **GREEDY)
                                              for _ in range(8)))
        self.assertEqual(len({a.choices[0].message.content for a in asyncio.run(ask())}), 1)


@unittest.skipUnless(ChatOpenAI, "needs the langchain-openai package")
class LangChain(Case):
    def test_invoke_stream_and_batch(self):
        model = ChatOpenAI(base_url=self.server.url + "/v1", api_key="none", model=self.server.get("/v1/models").json
                           ["data"][0]["id"], temperature=0, max_tokens=12, extra_body={"ignore_eos": True})
        text = model.invoke("hello").content
        self.assertTrue(text)
        self.assertEqual("".join(c.content for c in model.stream("hello")), text)
        self.assertEqual([m.content for m in model.batch(["hello"] * 4)], [text] * 4)
        self.assertEqual(model.invoke("hello").usage_metadata["output_tokens"], 12)


@unittest.skipUnless(text_string_to_metric_families, "needs the prometheus-client package")
class Prometheus(Case):
    def test_its_parser_reads_the_metrics(self):
        self.server.chat("hello", max_tokens=5)
        families = {f.name: f for f in text_string_to_metric_families(self.server.get("/metrics").text)}
        for name, kind in (("vllm:num_requests_running", "gauge"), ("vllm:prompt_tokens", "counter"),
                           ("vllm:request_success", "counter"), ("vllm:time_to_first_token_seconds", "histogram"),
                           ("vllm:iteration_tokens_total", "histogram")):
            self.assertEqual(families[name].type, kind)
            self.assertTrue(all(s.labels["model_name"] for s in families[name].samples))
        for family in families.values():
            if family.type == "histogram":
                buckets = [s.value for s in family.samples if s.name.endswith("_bucket")]
                self.assertEqual(buckets, sorted(buckets))
                self.assertEqual(buckets[-1], next(s.value for s in family.samples if s.name.endswith("_count")))


@unittest.skipUnless(shutil.which("curl"), "needs curl")
class Curl(Case):
    def test_streams(self):
        done = subprocess.run(["curl", "-sN", self.server.url + "/v1/chat/completions", "-d",
                               json.dumps({"messages": HELLO, "stream": True, "max_tokens": 4})], capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0)
        self.assertTrue(done.stdout.endswith(b"data: [DONE]\n\n"))


if __name__ == "__main__":
    main()
