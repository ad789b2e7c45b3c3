"""The API by its wire format: fields, shapes, streams, usage, log-probabilities, errors."""
import json
import math
import unittest

from server import DEMO, STORIES, Case, StoriesCase, main, run, text_of

GREEDY = {"temperature": 0}


class Chat(Case):
    def test_answer_has_the_documented_shape(self):
        answer = self.server.chat("hello", max_tokens=6)
        self.assertEqual(answer.status, 200)
        body = answer.json
        self.assertEqual(body["object"], "chat.completion")
        self.assertTrue(body["id"].startswith("chatcmpl-"))
        choice = body["choices"][0]
        self.assertEqual(choice["message"]["role"], "assistant")
        self.assertIsInstance(choice["message"]["content"], str)
        self.assertIn(choice["finish_reason"], ("stop", "length"))
        self.assertIsNone(choice["logprobs"])
        usage = body["usage"]
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"])
        self.assertIn("cached_tokens", usage["prompt_tokens_details"])
        for name in ("prompt_n", "prompt_ms", "predicted_n", "predicted_ms", "cache_n"):
            self.assertIn(name, body["timings"])
        self.assertTrue(answer.headers["x-request-id"])

    def test_stream_says_what_the_whole_answer_says(self):
        for fields in ({"temperature": 0}, {"temperature": 1.0, "seed": 7}, {"temperature": 0.9, "seed": -3, "top_k": 5}):
            body = {"messages": [{"role": "user", "content": "tell me"}], "max_tokens": 40, "ignore_eos": True, **fields}
            whole = self.server.post("/v1/chat/completions", body).json
            chunks = list(self.server.stream("/v1/chat/completions", body))
            self.assertEqual(text_of(chunks), whole["choices"][0]["message"]["content"])
            self.assertEqual(chunks[-1]["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"])

    def test_chunks_share_id_and_created_and_the_role_comes_with_the_first_token(self):
        chunks = list(self.server.stream("/v1/chat/completions",
                                         {"messages": [{"role": "user", "content": "x"}], "max_tokens": 12,
                                          "ignore_eos": True}))
        self.assertEqual(len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}), 1)
        self.assertEqual(chunks[0]["object"], "chat.completion.chunk")
        deltas = [c["choices"][0]["delta"] for c in chunks]
        self.assertEqual(deltas[0]["role"], "assistant")
        self.assertIn("content", deltas[0])
        self.assertFalse(any("role" in d for d in deltas[1:]))
        self.assertTrue(all(c["choices"][0]["finish_reason"] is None for c in chunks[:-1]))
        self.assertEqual(chunks[-1]["choices"][0]["finish_reason"], "length")
        self.assertFalse(any("usage" in c for c in chunks))

    def test_usage_chunk_comes_last_and_without_choices(self):
        body = {"messages": [{"role": "user", "content": "count"}], "max_tokens": 9, "ignore_eos": True}
        whole = self.server.post("/v1/chat/completions", body).json["usage"]
        chunks = list(self.server.stream("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}}))
        self.assertEqual(chunks[-1]["choices"], [])
        whole.pop("prompt_tokens_details")  # the second request may find pages of the first
        last = dict(chunks[-1]["usage"])
        last.pop("prompt_tokens_details")
        self.assertEqual(last, whole)
        self.assertTrue(all(c["usage"] is None for c in chunks[:-1]))
        self.assertIn("timings", chunks[-1])

    def test_continuous_usage_counts_up(self):
        chunks = list(self.server.stream("/v1/chat/completions", {
            "messages": [{"role": "user", "content": "count"}], "max_tokens": 5, "ignore_eos": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True}}))
        counts = [c["usage"]["completion_tokens"] for c in chunks]
        self.assertEqual(counts, [1, 2, 3, 4, 5, 5, 5])

    def test_usage_counts_are_the_tokenizers(self):
        messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "Hello, how are you?"}]
        tokens = self.server.post("/tokenize", {"messages": messages}).json
        usage = self.server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 3}).json["usage"]
        self.assertEqual(usage["prompt_tokens"], tokens["count"])
        self.assertEqual(len(tokens["tokens"]), tokens["count"])

    def test_choices_differ_by_their_seeds_and_keep_their_index(self):
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 20, "temperature": 1.5, "seed": 11, "n": 3,
                "ignore_eos": True}
        whole = self.server.post("/v1/chat/completions", body).json
        texts = [c["message"]["content"] for c in whole["choices"]]
        self.assertEqual([c["index"] for c in whole["choices"]], [0, 1, 2])
        self.assertEqual(len(set(texts)), 3)
        self.assertEqual(whole["usage"]["completion_tokens"], 60)
        chunks = list(self.server.stream("/v1/chat/completions", body))
        self.assertEqual([text_of(chunks, index=i) for i in range(3)], texts)
        self.assertEqual(sum(c["choices"][0]["finish_reason"] is not None for c in chunks), 3)
        one = self.server.post("/v1/chat/completions", {**body, "n": 1, "seed": 12}).json
        self.assertEqual(one["choices"][0]["message"]["content"], texts[1])

    def test_logprobs_have_bytes_and_as_many_alternatives_as_asked(self):
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 8, "temperature": 0, "logprobs": True,
                "top_logprobs": 3, "ignore_eos": True}
        whole = self.server.post("/v1/chat/completions", body).json["choices"][0]["logprobs"]["content"]
        self.assertEqual(len(whole), 8)
        for item in whole:
            self.assertEqual(bytes(item["bytes"]).decode(), item["token"])
            self.assertEqual(len(item["top_logprobs"]), 3)
            best = item["top_logprobs"][0]
            self.assertEqual((best["token"], best["logprob"]), (item["token"], item["logprob"]))
            self.assertLessEqual(item["logprob"], 0)
        chunks = list(self.server.stream("/v1/chat/completions", body))
        streamed = [i for c in chunks for i in (c["choices"][0]["logprobs"] or {"content": []})["content"]]
        self.assertEqual(streamed, whole)
        plain = self.server.chat("x", max_tokens=2, logprobs=True).json["choices"][0]["logprobs"]["content"]
        self.assertEqual(plain[0]["top_logprobs"], [])

    def test_stop_string_ends_the_answer_before_it(self):
        text = self.server.chat("x", max_tokens=30, ignore_eos=True, **GREEDY).json["choices"][0]["message"]["content"]
        stop = text[5:7]
        want = text[:text.index(stop)]
        for fields in ({"stop": stop}, {"stop": [stop, "\u2603"]}):
            got = self.server.chat("x", max_tokens=30, ignore_eos=True, **GREEDY, **fields).json["choices"][0]
            self.assertEqual((got["message"]["content"], got["finish_reason"]), (want, "stop"))
        got = self.server.chat("x", max_tokens=30, ignore_eos=True, stop=stop, include_stop_str_in_output=True,
                               **GREEDY).json["choices"][0]
        self.assertEqual(got["message"]["content"], want + stop)

    def test_parts_of_text_and_developer_role_are_accepted(self):
        plain = self.server.chat("one\ntwo", max_tokens=8, **GREEDY).json["choices"][0]["message"]["content"]
        parts = self.server.post("/v1/chat/completions", {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}],
            "max_tokens": 8, **GREEDY}).json["choices"][0]["message"]["content"]
        self.assertEqual(parts, plain)
        texts = [self.server.post("/v1/chat/completions", {
            "messages": [{"role": role, "content": "a"}, {"role": "user", "content": "b"}], "max_tokens": 8, **GREEDY}).json
            ["choices"][0]["message"]["content"] for role in ("developer", "system")]
        self.assertEqual(texts[0], texts[1])

    def test_unknown_fields_are_ignored_with_a_log_line(self):
        self.assertEqual(self.server.chat("x", max_tokens=1, frobnicate="\x1b[31m", user="me").status, 200)
        self.assertIn('ignored request field "frobnicate"', self.server.stderr())
        self.assertNotIn('"user"', self.server.stderr())

    def test_prompts_are_not_logged(self):
        self.server.chat("my secret words", max_tokens=1)
        self.assertNotIn("secret", self.server.stderr())


class Refusals(Case):
    def test_what_cannot_be_honoured_is_named(self):
        tool = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        for field, value in (("tools", tool), ("response_format", {"type": "json_object"}), ("functions", tool),
                             ("tool_choice", "required"), ("structured_outputs", {"regex": "a"}), ("guided_json", {"a": 1}),
                             ("best_of", 2), ("chat_template", "{{ x }}"), ("prompt_logprobs", 1)):
            self.refused(self.server.chat("x", **{field: value}), 400, param=field, says=field)
        for field, value in (("tools", []), ("tools", None), ("tool_choice", "none"), ("best_of", 1),
                             ("response_format", {"type": "text"}), ("response_format", None)):
            self.assertEqual(self.server.chat("x", max_tokens=1, **{field: value}).status, 200)

    def test_values_out_of_range_are_named(self):
        for field, value in (("temperature", -1), ("temperature", 1e9), ("temperature", "hot"), ("top_p", 0), ("top_p", 1.1),
                             ("top_k", -2), ("top_k", 1.5), ("min_p", 2), ("n", 0), ("n", 10**6), ("n", 10**15),
                             ("max_tokens", 0), ("max_tokens", -5), ("max_tokens", 2**40), ("top_logprobs", 10**6),
                             ("presence_penalty", 1000), ("frequency_penalty", "x"), ("repetition_penalty", 0),
                             ("seed", 1.5), ("seed", "a"), ("stop", [""]), ("stop", [1]), ("stop", ["a"] * 1000), ("stop", {}),
                             ("stop_token_ids", ["a"]), ("stop_token_ids", [-1]), ("logit_bias", {"a": 1}),
                             ("logit_bias", {"1": 1000}), ("logit_bias", [1]), ("stream", "yes"), ("stream", 1),
                             ("messages", []), ("messages", "x"), ("messages", [1]), ("messages", [{"content": "x"}]),
                             ("messages", [{"role": "user"}]), ("messages", [{"role": "user", "content": 5}]),
                             ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
                             ("chat_template_kwargs", 3), ("stream_options", {"include_usage": True}),
                             ("min_tokens", 50)):
            body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4, "logprobs": True, field: value}
            self.refused(self.server.post("/v1/chat/completions", body), 400, param=field)
        self.refused(self.server.chat("x", top_logprobs=2), 400, param="top_logprobs")
        self.refused(self.server.chat("x", stop_token_ids=[96], max_tokens=2), 400)
        self.refused(self.server.chat("x", logit_bias={"100000": 1}, max_tokens=2), 400)

    def test_prompt_beyond_the_context_is_refused_not_cut(self):
        self.refused(self.server.chat("x" * 5000), 400, param="messages", code="context_length_exceeded")
        self.refused(self.server.complete("x" * 5000), 400, param="prompt", code="context_length_exceeded")
        self.refused(self.server.complete("x", max_tokens=100000), 400, param="prompt", code="context_length_exceeded")

    def test_missing_things(self):
        self.refused(self.server.post("/v1/chat/completions", {}), 400, param="messages")
        self.refused(self.server.post("/v1/completions", {}), 400, param="prompt")
        self.refused(self.server.chat("x", model="gpt-4"), 404, param="model", code="model_not_found")
        self.refused(self.server.get("/v1/models/gpt-4"), 404, param="model", code="model_not_found")
        self.refused(self.server.get("/nothing"), 404)
        self.refused(self.server.get("/v1/chat/completions"), 405)
        self.refused(self.server.post("/v1/models", {}), 405)

    def test_bad_json_is_400(self):
        for body in (b"", b"{", b"[]", b"null", b'"x"', b'{"messages": [}', b"\xff\xfe", b'{"prompt": "\xc3\x28"}',
                     b'{"prompt": "\\ud800"}', b'{"prompt": "a\\u0000b"}', b"[" * 100000, b'{"a":' * 100000,
                     b'{"n": 1e999}', b'{"n": 99999999999999999999999}', b'{"n": 1, "n": 2}', b'{"prompt": "x"} x'):
            for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
                answer = self.server.post(path, body)
                self.assertEqual(answer.status, 400, (body[:40], answer.text))
                self.assertEqual(answer.error["type"], "invalid_request_error")

    def test_template_errors_are_the_clients(self):
        answer = self.server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}],
                                                           "chat_template_kwargs": {"messages": 5}, "max_tokens": 1})
        self.assertIn(answer.status, (200, 400))


class Completions(Case):
    def test_prompts_come_as_text_ids_and_lists_of_them(self):
        ids = self.server.post("/tokenize", {"prompt": "hello"}).json["tokens"]
        body = {"max_tokens": 6, **GREEDY}
        one = self.server.complete("hello", **body).json
        self.assertEqual(one["object"], "text_completion")
        text = one["choices"][0]["text"]
        for prompt, count in ((ids, 1), (["hello"], 1), ([ids], 1), (["hello", "hello"], 2), ([ids, ids, ids], 3)):
            got = self.server.complete(prompt, **body).json
            self.assertEqual([c["text"] for c in got["choices"]], [text] * count)
            self.assertEqual([c["index"] for c in got["choices"]], list(range(count)))
            self.assertEqual(got["usage"]["prompt_tokens"], len(ids) * count)
        for prompt in ([], [[]], [1.5], [-1], [10**12], ["a", 1], {}, 5, [["a"]], [None], ["x"] * 2000):
            self.refused(self.server.complete(prompt, **body), 400, param="prompt")
        self.refused(self.server.complete([500], **body), 400)

    def test_several_prompts_stream_side_by_side(self):
        body = {"prompt": ["abc", "xyz"], "n": 2, "max_tokens": 10, "temperature": 1, "seed": 5, "ignore_eos": True}
        whole = self.server.post("/v1/completions", body).json
        chunks = list(self.server.stream("/v1/completions", body))
        self.assertEqual([text_of(chunks, "text", i) for i in range(4)], [c["text"] for c in whole["choices"]])

    def test_echo_with_logprobs_scores_the_prompt(self):
        got = self.server.complete("hello", echo=True, max_tokens=4, logprobs=2, ignore_eos=True, **GREEDY).json
        choice = got["choices"][0]
        lp = choice["logprobs"]
        count = got["usage"]["total_tokens"]
        self.assertTrue(choice["text"].startswith("hello"))
        self.assertEqual({len(lp[k]) for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}, {count})
        self.assertIsNone(lp["token_logprobs"][0])
        self.assertIsNone(lp["top_logprobs"][0])
        for token, value, top in list(zip(lp["tokens"], lp["token_logprobs"], lp["top_logprobs"]))[1:]:
            self.assertEqual(top[token], value)  # the same figure in both places
            self.assertTrue(value <= 0 and len(top) in (1, 2, 3))
        for token, offset in zip(lp["tokens"], lp["text_offset"]):
            if token not in ("<s>", ""):
                self.assertEqual(choice["text"][offset:offset + len(token)], token)
        chunks = list(self.server.stream("/v1/completions", {"prompt": "hello", "echo": True, "max_tokens": 4,
                                                             "logprobs": 2, "ignore_eos": True, **GREEDY}))
        self.assertEqual(text_of(chunks, "text"), choice["text"])
        for name in lp:
            parts = [c["choices"][0]["logprobs"] for c in chunks]
            self.assertEqual([v for p in parts if p for v in p[name]], lp[name])

    def test_scoring_without_generation(self):
        """What lm-evaluation-harness asks: token ids, echo, max_tokens 0."""
        ids = self.server.post("/tokenize", {"prompt": "hello"}).json["tokens"]
        with_answer = self.server.complete(ids, echo=True, max_tokens=1, logprobs=1, **GREEDY).json["choices"][0]
        got = self.server.complete(ids, echo=True, max_tokens=0, logprobs=1, **GREEDY).json
        self.assertEqual(got["choices"][0]["logprobs"]["token_logprobs"],
                         with_answer["logprobs"]["token_logprobs"][:len(ids)])
        self.assertEqual(got["usage"]["completion_tokens"], 0)
        self.assertEqual(got["choices"][0]["finish_reason"], "length")


class Stories(StoriesCase):
    def test_stream_is_the_answer_is_the_programs(self):
        for fields, options in (({"temperature": 0}, ["--temperature", "0"]),
                                ({"temperature": 0.8, "seed": 42, "top_p": 0.9},
                                 ["--temperature", "0.8", "--seed", "42", "--top-p", "0.9"])):
            body = {"prompt": "Once upon a time", "max_tokens": 80, **fields}
            whole = self.server.post("/v1/completions", body).json
            chunks = list(self.server.stream("/v1/completions", body))
            program = run("run", "-m", STORIES, "--raw", "-p", "Once upon a time", "-n", 80, "--json", *options)
            text = json.loads(program.stdout)["text"]
            self.assertEqual(whole["choices"][0]["text"], text)
            self.assertEqual(text_of(chunks, "text"), text)

    def test_logprobs_are_the_models(self):
        """Of the answer, as `run` gives them; of the prompt, as nvllm_score sums them up for perplexity."""
        body = {"prompt": "Once upon a time", "max_tokens": 12, "logprobs": 5, "temperature": 0, "echo": True}
        lp = self.server.post("/v1/completions", body).json["choices"][0]["logprobs"]
        program = json.loads(run("run", "-m", STORIES, "--raw", "-p", "Once upon a time", "-n", 12, "--temperature", "0",
                                 "--json", "--logprobs", "5").stdout)
        for ours, theirs in zip(lp["token_logprobs"][-12:], program["tokens"]):
            self.assertAlmostEqual(ours, theirs["logprob"], delta=1e-4)
        for top in lp["top_logprobs"][1:]:
            self.assertLessEqual(sum(math.exp(v) for v in list(top.values())[:5]), 1 + 1e-4)

    def test_tokens_go_there_and_back(self):
        text = "Once upon a time, h\u00e9llo \u2603!"
        got = self.server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json
        self.assertEqual(got["count"], len(got["tokens"]))
        self.assertEqual(len(got["token_strs"]), got["count"])
        self.assertEqual(got["tokens"][0], 1)
        bare = self.server.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json["tokens"]
        self.assertEqual(bare, got["tokens"][1:])
        self.assertEqual(self.server.post("/detokenize", {"tokens": bare}).json["prompt"], text)
        info = self.server.get("/tokenizer_info").json
        self.assertEqual(info["vocab_size"], 512)

    def test_halves_of_characters_keep_their_bytes(self):
        lp = self.server.complete("caf\u00e9 \u2603", max_tokens=1, echo=True, logprobs=1).json["choices"][0]["logprobs"]
        self.assertIn("bytes:\\xe2", lp["tokens"])
        self.assertEqual(lp["text_offset"], sorted(lp["text_offset"]))

    def test_a_model_without_a_template_refuses_chat(self):
        self.refused(self.server.chat("hello"), 400, param="messages")


@unittest.skipUnless(DEMO.exists(), f"needs {DEMO}")
class Demo(Case):
    @classmethod
    def model(cls):
        return DEMO

    def test_a_chat_is_the_programs_answer(self):
        for fields, options in (({"temperature": 0}, ["--temperature", "0"]),
                                ({"temperature": 0.7, "seed": 5, "top_k": 20},
                                 ["--temperature", "0.7", "--seed", "5", "--top-k", "20"])):
            body = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me a story."}],
                    "max_tokens": 60, **fields}
            whole = self.server.post("/v1/chat/completions", body).json["choices"][0]
            chunks = list(self.server.stream("/v1/chat/completions", body))
            program = run("run", "-m", DEMO, "--system", "Be brief.", "-p", "Tell me a story.", "-n", 60, "--json", *options)
            done = json.loads(program.stdout)
            self.assertEqual((whole["message"]["content"], whole["finish_reason"]), (done["text"], done["finish"]))
            self.assertEqual(text_of(chunks), done["text"])

    def test_turns_compute_only_what_is_new(self):
        messages, computed = [], []
        for i in range(10):
            messages.append({"role": "user", "content": f"Tell me more about animal number {i}."})
            got = self.server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 24, "temperature": 0}).json
            messages.append(got["choices"][0]["message"])
            usage = got["usage"]
            computed.append(usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"])
            self.assertEqual(got["timings"]["prompt_n"], computed[-1])
        if self.server.metric("vllm:prefix_cache_queries_total"):
            self.assertLess(max(computed[1:]), usage["prompt_tokens"] / 2)


class Thinking(Case):
    """The template opens <think>; a model of 96 letters cannot close it, so everything is reasoning."""
    @classmethod
    def model(cls):
        from server import chat_model
        return chat_model(cls.folder, template="{% for m in messages %}{{ m.content }}{% endfor %}"
                                               "{% if enable_thinking is not defined or enable_thinking %}<think>\n"
                                               "{% else %}<think>\n\n</think>\n\n{% endif %}")

    def test_reasoning_is_kept_apart(self):
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20, "ignore_eos": True, **GREEDY}
        message = self.server.post("/v1/chat/completions", body).json["choices"][0]["message"]
        self.assertEqual(message["content"], "")
        self.assertTrue(message["reasoning_content"])
        chunks = list(self.server.stream("/v1/chat/completions", body))
        thought = "".join(c["choices"][0]["delta"].get("reasoning_content", "") for c in chunks)
        self.assertEqual((thought, text_of(chunks)), (message["reasoning_content"], ""))

    def test_template_variables_reach_the_template(self):
        message = self.server.chat("hi", max_tokens=20, ignore_eos=True, chat_template_kwargs={"enable_thinking": False},
                                   **GREEDY).json["choices"][0]["message"]
        self.assertNotIn("reasoning_content", message)
        self.assertTrue(message["content"])


if __name__ == "__main__":
    main()
