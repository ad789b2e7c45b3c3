"""Every command on tiny models: what comes out, and what is refused."""
import fcntl
import json
import math
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

from program import BYTES_GGUF, FIXTURES, PROGRAM, Case, chat_model, main, run

SPEED = r"prompt \d+ tokens, [\d.]+ tok/s; generated \d+ tokens, [\d.]+ tok/s\n$"


class Run(Case):
    def test_greedy_text_repeats_and_speed_is_the_last_line(self):
        words = ["run", "-m", BYTES_GGUF, "-p", "abc", "-n", "12", "--temperature", "0", "--ignore-eos"]
        first, second = self.succeeds(*words), self.succeeds(*words)
        self.assertEqual(first.stdout, second.stdout)
        self.assertRegex(first.stderr.decode(), SPEED)
        self.assertIn(b"generated 12 tokens", first.stderr)

    def test_json_holds_text_tokens_and_logprobs(self):
        words = ["run", "-m", BYTES_GGUF, "-p", "abc", "-n", "5", "--temperature", "0", "--ignore-eos", "--logprobs", "3",
                 "--json"]
        answer = json.loads(self.succeeds(*words).stdout)
        self.assertEqual(answer["finish"], "length")
        self.assertEqual(answer["usage"]["generated_tokens"], 5)
        self.assertEqual(len(answer["tokens"]), 5)
        for token in answer["tokens"]:
            self.assertEqual(len(token["top"]), 3)
            self.assertEqual(token["id"], token["top"][0]["id"])
            self.assertAlmostEqual(token["logprob"], token["top"][0]["logprob"], places=5)
            self.assertGreaterEqual(token["top"][0]["logprob"], token["top"][1]["logprob"])

    def test_logprobs_go_to_stderr_while_streaming(self):
        done = self.succeeds("run", "-m", BYTES_GGUF, "-p", "abc", "-n", "3", "--logprobs", "2", "--ignore-eos", "--device", "cpu")
        self.assertEqual(len(done.stderr.decode().splitlines()), 4)

    def test_prompt_of_stdin_is_the_prompt(self):
        words = ["run", "-m", BYTES_GGUF, "-n", "8", "--temperature", "0", "--ignore-eos", "-p"]
        self.assertEqual(self.succeeds(*words, "-", stdin=b"abc\n").stdout, self.succeeds(*words, "abc").stdout)

    def test_seed_decides_sampled_text(self):
        words = ["run", "-m", BYTES_GGUF, "-p", "abc", "-n", "24", "--temperature", "1.5", "--ignore-eos", "--json", "--seed"]
        texts = [json.loads(self.succeeds(*words, seed).stdout)["tokens"] for seed in (1, 1, 2)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])

    def test_stop_string_ends_the_answer(self):
        words = ["run", "-m", BYTES_GGUF, "-p", "abc", "-n", "40", "--temperature", "1", "--seed", "3", "--ignore-eos", "--json"]
        text = json.loads(self.succeeds(*words).stdout)["text"]
        stop = next(c for c in text[1:] if c.isascii() and c.isprintable())
        answer = json.loads(self.succeeds(*words, "--stop", stop).stdout)
        self.assertEqual((answer["finish"], answer["text"]), ("stop", text[:text.index(stop)]))

    def test_chat_is_the_default_where_there_is_a_template(self):
        model = chat_model(self.folder)
        words = ["run", "-m", model, "-p", "Hi", "-n", "6", "--temperature", "0", "--ignore-eos", "--json"]
        chat, raw = json.loads(self.succeeds(*words).stdout), json.loads(self.succeeds(*words, "--raw").stdout)
        self.assertEqual(chat["usage"]["prompt_tokens"], 5)  # user, H, i, newline, assistant
        self.assertEqual(raw["usage"]["prompt_tokens"], 3)   # BOS, H, i
        system = json.loads(self.succeeds(*words, "--system", "ok").stdout)
        self.assertEqual(system["usage"]["prompt_tokens"], 9)

    def test_chat_without_a_template_is_refused(self):
        model = chat_model(self.folder, template=None)
        self.fails(1, "run", "-m", model, "-p", "x", "--chat", says="no chat template")
        self.fails(1, "run", "-m", model, "-p", "x", "--system", "y", says="--system needs a chat template")
        self.fails(1, "chat", "-m", model, says="no chat template")

    def test_prompt_longer_than_the_context_is_refused(self):
        self.fails(1, "run", "-m", BYTES_GGUF, "-p", "a" * 100, "--context", "32", says="32")

    def test_context_larger_than_memory_is_refused(self):
        model = chat_model(self.folder, max_position_embeddings=1073741824)
        self.fails(1, "run", "-m", model, "-p", "a", "--context", "1073741824", says="GB")

    def test_options_that_the_library_refuses(self):
        self.fails(2, "run", "-m", BYTES_GGUF, "-p", "a", "--device", "abacus", says="abacus")
        self.fails(2, "run", "-m", BYTES_GGUF, "-p", "a", "--isa", "mmx", says="mmx")

    def test_reference_and_every_isa_agree(self):
        words = ["run", "-m", BYTES_GGUF, "-p", "The quick brown fox", "-n", "16", "--temperature", "0", "--ignore-eos"]
        texts = {self.succeeds(*words, *more).stdout for more in ([], ["--isa", "scalar"], ["-t", "1"], ["--device", "reference"])}
        self.assertEqual(len(texts), 1)

    def test_families_open_without_a_tokenizer_and_say_so(self):
        self.fails(1, "run", "-m", FIXTURES / "families/qwen3-untied-f32", "-p", "x", says="tokenizer")

    def test_default_model_is_demo_in_the_current_folder(self):
        (self.folder / "bin").mkdir()
        (self.folder / "models/demo").mkdir(parents=True)
        chat_model(self.folder / "models/demo")
        copy = self.folder / "bin/nano-vllm"
        copy.write_bytes(Path(PROGRAM).read_bytes())
        copy.chmod(0o755)
        done = self.succeeds("run", "-n", "3", "--ignore-eos", program=str(copy), cwd="/")
        self.assertIn(b"prompt: Tell me a story about a little dog.\n", done.stderr)
        copy.rename("/tmp/nano-vllm-without-a-model")
        self.addCleanup(os.unlink, "/tmp/nano-vllm-without-a-model")
        self.fails(1, "run", program="/tmp/nano-vllm-without-a-model", cwd="/", says="no model: give one with -m")


class Interrupt(Case):
    def started(self, *options):
        """A run that has printed something and would go on for long."""
        words = [PROGRAM, "run", "-m", str(BYTES_GGUF), "-p", "abc", "--ignore-eos", "--device", "reference", *options]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        return process

    def test_first_ctrl_c_ends_the_answer(self):
        process = self.started()
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(20), 0)
        self.assertRegex(process.stderr.read().decode(), SPEED)


    def test_second_ctrl_c_ends_the_program(self):
        """It cannot end in peace: it waits for a reader of its stderr."""
        process = self.started("--logprobs", "20")
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        process.stdout.read(1)
        time.sleep(0.3)
        for _ in range(2):
            self.assertIsNone(process.poll())
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        self.assertEqual(process.wait(20), 130)


class Chat(Case):
    def state(self):
        return {"XDG_STATE_HOME": str(self.folder / "state"), "NO_COLOR": "1", "TERM": "xterm"}

    def model(self):
        folder = self.folder / "model"
        folder.mkdir()
        return chat_model(folder)

    def test_lines_of_a_pipe_are_turns(self):
        saved = self.folder / "saved.json"
        lines = f"/set max-tokens 4\n/set temperature 0\nHi\n\n/system be kind\none\\\ntwo\n/save {saved}\n/quit\nnever\n"
        self.succeeds("chat", "-m", self.model(), "--ignore-eos", stdin=lines.encode())
        messages = json.loads(saved.read_text())
        self.assertEqual([m["role"] for m in messages], ["system", "user", "assistant", "user", "assistant"])
        self.assertEqual([m["content"] for m in messages if m["role"] != "assistant"], ["be kind", "Hi", "one\ntwo"])

    def test_turn_that_fails_ends_a_pipe(self):
        text = ("a" * 300 + "\nHi\n").encode()
        self.fails(1, "chat", "-m", self.model(), stdin=text)

    def test_invalid_utf8_in_a_line(self):
        self.fails(1, "chat", "-m", self.model(), stdin=b"a\xff\n", says="byte 1 (0xff)")

    def test_conversation_reads_its_beginning_from_the_cache(self):
        done = self.succeeds("chat", "-m", self.model(), "-n", "3", "--ignore-eos", stdin=b"a" * 100 + b"\nHi\n/stats\n")
        self.assertRegex(done.stderr, rb"prompt \d+ tokens \(\d+ from the cache\)")

    def test_clear_forgets_and_unknown_commands_are_named(self):
        saved = self.folder / "saved.json"
        lines = f"Hi\n/clear\n/frobnicate\n/stats\n/help\n/save {saved}\n"
        done = self.succeeds("chat", "-m", self.model(), "-n", "3", stdin=lines.encode())
        self.assertEqual(json.loads(saved.read_text()), [])
        self.assertIn(b"unknown command /frobnicate", done.stderr)
        self.assertRegex(done.stderr, rb"prompt \d+ tokens")

    def test_terminal_edits_lines_and_keeps_history(self):
        child, terminal = pty.fork()
        if child == 0:
            words = [PROGRAM, "chat", "-m", str(self.folder / "model"), "-n", "4", "--ignore-eos"]
            time.sleep(0.3)  # the parent makes the model
            os.execve(PROGRAM, words, {**os.environ, **self.state()})
        self.model()
        self.expect(terminal, b">>>")
        os.write(terminal, b"junk\x03Hello\r")  # Ctrl-C clears the line
        self.expect(terminal, b">>>")
        os.write(terminal, b"\x04")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        history = (self.folder / "state/nano-vllm/history").read_text()
        self.assertIn("\nHello\n", history)
        self.assertNotIn("junk", history)

    def expect(self, terminal, what, seconds=20):
        seen, end = b"", time.monotonic() + seconds
        while not seen.rstrip(b"\x1b[K \r\n").endswith(what):
            left = end - time.monotonic()
            self.assertGreater(left, 0, seen)
            if select.select([terminal], [], [], left)[0]:
                seen += os.read(terminal, 4096)
        time.sleep(0.2)
        return seen


class Tokens(Case):
    def test_text_round_trips(self):
        text = "Grüße,\n\n  東京 🙂\t\x01 'end' ".encode()
        ids = self.succeeds("tokenize", "-m", BYTES_GGUF, stdin=text).stdout
        self.assertRegex(ids, rb"^\d+( \d+)*\n$")
        self.assertEqual(self.succeeds("detokenize", "-m", BYTES_GGUF, stdin=ids).stdout, text)

    def test_bos_and_special_tokens_are_asked_for(self):
        model = chat_model(self.folder)
        tokenize = lambda *options: self.succeeds("tokenize", "-m", model, *options, stdin=b"a</s>").stdout.split()
        self.assertEqual(tokenize("--special"), [b"1", b"6", b"2"])
        self.assertEqual(tokenize("--special", "--no-bos"), [b"6", b"2"])
        self.assertEqual(self.succeeds("detokenize", "-m", model, stdin=b"[1, 6, 2]").stdout, b"a")
        self.assertEqual(self.succeeds("detokenize", "--special", "-m", model, stdin=b"1 6 2").stdout, b"<s>a</s>")

    def test_nothing_is_nothing(self):
        self.assertEqual(self.succeeds("tokenize", "--no-bos", "-m", BYTES_GGUF).stdout, b"\n")
        self.assertEqual(self.succeeds("detokenize", "-m", BYTES_GGUF).stdout, b"")

    def test_id_without_a_token_has_no_text(self):
        """Models round their vocabulary up, so such ids do come out of them."""
        texts = {self.succeeds("detokenize", "-m", BYTES_GGUF, stdin=ids).stdout for ids in (b"70", b"70 100000")}
        self.assertEqual(len(texts), 1)

    def test_tokenizer_file_alone_is_enough(self):
        chat_model(self.folder)
        self.assertEqual(self.succeeds("tokenize", "-m", self.folder / "tokenizer.json", stdin=b"abc").stdout, b"1 6 7 8\n")

    def test_unknown_tokenizer_part_is_named(self):
        path = chat_model(self.folder) / "tokenizer.json"
        text = json.loads(path.read_text())
        text["pre_tokenizer"] = {"type": "Abacus"}
        path.write_text(json.dumps(text))
        self.fails(1, "tokenize", "-m", path, stdin=b"a", says="Abacus")


class PreTokenizer(Case):
    """What a GGUF calls its pre-tokenizer, in a copy of a fixture whose name is changed in place."""
    def copy(self, old, new):
        data = (FIXTURES / "gguf/qwen3-bf16.gguf").read_bytes()
        self.assertEqual((data.count(old), len(old)), (1, len(new)))
        path = self.folder / "copy.gguf"
        path.write_bytes(data.replace(old, new))
        return path

    def test_missing_name_is_told_where_text_is_read(self):
        model = self.copy(b"tokenizer.ggml.pre", b"tokenizer.ggml.prx")
        note = b"tokenizer: the file names no pre-tokenizer"
        done = self.succeeds("tokenize", "-m", model, stdin=b"abc")
        self.assertIn(note, done.stderr)
        self.assertEqual(len(done.stdout.split()), 3)
        self.assertIn(note, self.succeeds("run", "-m", model, "-p", "abc", "-n", "2", "--device", "cpu").stderr)
        self.assertNotIn(note, self.succeeds("tokenize", "-m", FIXTURES / "gguf/qwen3-bf16.gguf", stdin=b"abc").stderr)

    def test_unknown_name_is_refused(self):
        model = self.copy(b"\5\0\0\0\0\0\0\0qwen2", b"\5\0\0\0\0\0\0\0qwenX")
        says = 'copy.gguf: pre-tokenizer "qwenX" is not known'
        self.fails(1, "tokenize", "-m", model, stdin=b"abc", says=says)
        self.fails(1, "run", "-m", model, "-p", "abc", says=says)


class Render(Case):
    def test_model_renders_messages_as_its_template_does(self):
        model = chat_model(self.folder)
        context = {"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": True}
        words = ["render", "-m", model, "--context", "-"]
        self.assertEqual(self.succeeds(*words, stdin=json.dumps(context).encode()).stdout, b"<|user|>Hi\n<|assistant|>")
        del context["add_generation_prompt"]
        self.assertEqual(self.succeeds(*words, stdin=json.dumps(context).encode()).stdout, b"<|user|>Hi\n")
        self.fails(1, *words, stdin=b"{}", says="no messages")

    def test_variables_reach_the_template(self):
        model = chat_model(self.folder, template="{{ mood }} {{ bos_token }}{{ messages[0].content }}")
        context = {"messages": [{"role": "user", "content": "Hi"}], "mood": "calm"}
        done = self.succeeds("render", "-m", model, "--context", "-", stdin=json.dumps(context).encode())
        self.assertEqual(done.stdout, b"calm <s>Hi")


class Measure(Case):
    def test_bench_json_has_every_figure(self):
        words = ["bench", "--random-weights", FIXTURES / "families/llama-gqa2-f32/config.json", "--prompt-tokens", "16",
                 "--gen-tokens", "8", "--reps", "2", "--json"]
        for more in ([], ["--batch", "3", "--context", "20"], ["--dtype", "bf16"]):
            figures = json.loads(self.succeeds(*words, *more).stdout)
            for name in ("prompt_tokens_per_second", "generated_tokens_per_second"):
                rate = figures[name]
                self.assertGreater(rate["min"], 0)
                self.assertTrue(rate["min"] <= rate["median"] <= rate["max"])
            for name in ("gb_per_s", "share_of_bandwidth", "prompt_gflops", "share_of_gflops", "ms_per_step"):
                self.assertGreater(figures[name], 0, name)
            self.assertGreater(figures["cost"]["peak_rss_bytes"], 0)
            self.assertGreater(figures["cost"]["kv_bytes"], 0)

    def test_bench_table_needs_no_tokenizer(self):
        done = self.succeeds("bench", "-m", FIXTURES / "families/qwen3-tied-bf16", "--reps", "1", "--gen-tokens", "4",
                             "--prompt-tokens", "8")
        for word in (b"tok/s", b"GB/s", b"GFLOP/s", b"peak resident", b"KV cache", b"start-up"):
            self.assertIn(word, done.stdout)

    def test_perplexity_follows_its_definition(self):
        """The same windows scored from prompt log-probabilities of another path: the greedy run's own."""
        text = self.folder / "text"
        text.write_text("abcdefgh" * 12)
        words = ["perplexity", "-m", BYTES_GGUF, "-f", text, "--context", "16", "--json"]
        first, second = (json.loads(self.succeeds(*words).stdout) for _ in range(2))
        self.assertEqual(first["perplexity"], second["perplexity"])
        n_ids = len(self.succeeds("tokenize", "-m", BYTES_GGUF, stdin=text.read_bytes()).stdout.split())
        self.assertEqual(first["windows"], n_ids // 16)
        self.assertEqual(first["scored_tokens"], first["windows"] * 7)
        self.assertTrue(1 < first["perplexity"] < math.inf)

    def test_text_shorter_than_a_window_is_refused(self):
        self.fails(1, "perplexity", "-m", BYTES_GGUF, "-f", "-", "--context", "64", stdin=b"abc", says="do not fill one window")


class Inspect(Case):
    def test_every_part_has_a_table_and_json(self):
        for part in ([], ["config"], ["tensors"], ["graph"], ["memory"]):
            json.loads(self.succeeds("inspect", *part, "-m", BYTES_GGUF, "--json").stdout)
            self.assertGreater(len(self.succeeds("inspect", *part, "-m", BYTES_GGUF).stdout.splitlines()), 2, part)

    def test_summary_names_the_architecture(self):
        summary = json.loads(self.succeeds("inspect", "-m", FIXTURES / "families/qwen3-tied-bf16", "--json").stdout)
        self.assertEqual(summary["architecture"], "Qwen3ForCausalLM")

    def test_unknown_architecture_is_refused_by_name(self):
        model = chat_model(self.folder, architectures=["AbacusForCausalLM"], model_type="abacus")
        self.assertIn("LlamaForCausalLM", self.fails(1, "inspect", "-m", model, says="AbacusForCausalLM"))


if __name__ == "__main__":
    main()
