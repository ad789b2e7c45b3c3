"""What measures and compares: bench by op and over a grid, profile, check --layers. On the CPU; on a GPU where there is one."""
import json
import subprocess
import sys

from program import FIXTURES, PROGRAM, SOURCE, Case, gpu, main, run

FAMILIES = FIXTURES / "families"
TINY = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 500,
        "max_position_embeddings": 40960, "torch_dtype": "bfloat16", "tie_word_embeddings": True}


class Measured(Case):
    def tiny(self, **changes):
        """A config.json for random weights."""
        path = self.folder / "config.json"
        path.write_text(json.dumps({**TINY, **changes}))
        return path

    def json(self, *words):
        return json.loads(self.succeeds(*words, "--json").stdout)


class Fusion(Measured):
    def kinds(self, *words):
        figures = self.json("bench", "--random-weights", self.tiny(), "--reps", "1", "-n", "4", "-p", "8", "--profile",
                            *words)
        calls = {}
        for op in figures["profile"]["generate"]["ops"]:
            calls[op["op"]] = calls.get(op["op"], 0) + op["calls"]
        return calls

    def test_reference_runs_fused_ops_and_with_fusion_off_single_ones(self):
        fused, single = self.kinds("--device", "reference"), self.kinds("--device", "reference", "--fusion", "off")
        self.assertEqual(fused, {"rope_table": 1, "embed": 1, "norm_linear": 2 * 2 + 1, "rope_attention": 2,
                                 "linear": 2 * 2, "draw": 1})
        self.assertEqual(single, {"rope_table": 1, "embed": 1, "rmsnorm": 2 * 4 + 1, "linear": 2 * 4 + 1, "rope": 2,
                                  "kv_write": 2, "attention": 2, "silu_mul": 2, "gather": 1, "draw": 1})

    def test_cpu_has_single_ops(self):
        self.assertNotIn("norm_linear", self.kinds("--device", "cpu"))

    def test_text_does_not_depend_on_fusion(self):
        words = ["run", "-m", SOURCE / "models/demo", "--device", "reference", "-p", "Once", "-n", "8", "--temperature", "0"]
        self.assertEqual(self.succeeds(*words, "--fusion", "off").stdout, self.succeeds(*words, "--fusion", "on").stdout)


class Builds(Measured):
    def test_builds_are_compared_in_turns(self):
        other = self.folder / "other"
        other.symlink_to(PROGRAM)
        words = [sys.executable, SOURCE / "tools/compare_builds.py", "--rounds", "2", "--case",
                 f"--random-weights {self.tiny()} --reps 1 -n 4 -p 8"]
        done = subprocess.run([*words, PROGRAM, other], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        rows = [line.split() for line in done.stdout.splitlines() if line.startswith("  ")]
        self.assertEqual([row[:2] for row in rows], [[what, str(which)] for what in ("generate", "prompt")
                                                     for which in (PROGRAM, other)])
        self.assertEqual([row[-1] for row in rows[::2]], ["1.000", "1.000"])
        done = subprocess.run([*words, PROGRAM, self.folder / "nowhere"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, "FAILED .*nowhere.*No such file")


class BenchOps(Measured):
    def test_profile_adds_up_to_its_sum_and_has_every_op(self):
        words = ["bench", "--random-weights", self.tiny(), "--reps", "1", "-n", "4", "-p", "32", "--context", "100", "--profile"]
        figures = self.json(*words)
        for name, tokens in (("prompt", 32), ("generate", 1)):
            table = figures["profile"][name]
            self.assertEqual((table["tokens"], table["rows"]), (tokens, 1))
            self.assertGreater(table["steps"], 0)
            self.assertAlmostEqual(sum(op["us"] for op in table["ops"]), table["sum_us"], delta=1e-3 * table["sum_us"])
            self.assertAlmostEqual(sum(op["share"] for op in table["ops"]), 1, places=3)
            self.assertGreater(table["step_us"], 0)
            calls = {(op["op"], op["role"]): op["calls"] for op in table["ops"]}
            if ("linear", "qkv") in calls:  # single ops
                for role in ("qkv", "o", "gate_up", "down"):
                    self.assertEqual(calls[("linear", role)], 2)
                self.assertEqual(calls[("linear", "lm_head")], 1)
                self.assertEqual(calls[("attention", "")], 2)
        ops = {(op["op"], op["role"]): op for op in figures["profile"]["generate"]["ops"]}
        down = ops[("linear", "down")]
        self.assertAlmostEqual(down["gb_per_s"] * down["us"] * 1e3, 2 * 2 * 64 * 128, delta=50)  # 2 layers, 2 bytes
        self.assertAlmostEqual(down["gflops"] * down["us"] * 1e3, 2 * 2 * 64 * 128, delta=50)
        attention = ops[("attention", "")]
        held = figures["profile"]["generate"]["kv_tokens"]
        self.assertTrue(101 <= held <= 112, held)
        self.assertAlmostEqual(attention["gb_per_s"] * attention["us"] * 1e3, 2 * held * 2 * 2 * 16 * 2, delta=500)
        self.assertEqual(figures["kernels_per_step"], 0)

    def test_table_of_ops_is_printed_for_a_batch(self):
        done = self.succeeds("bench", "--random-weights", self.tiny(), "--reps", "1", "-n", "4", "-b", "3", "--profile")
        text = done.stdout.decode()
        self.assertIn("\nprompt step: 128 tokens of ", text)
        self.assertIn("\ngeneration step: 3 tokens of 3 sequences", text)
        self.assertRegex(text, r"\nlinear +gate_up +2 +[\d.]+ +[\d.]+ %")
        self.assertEqual(text.count("ops that are timed do not overlap"), 2)

    def test_step_tokens_decide_the_prompt_step(self):
        figures = self.json("bench", "--random-weights", self.tiny(), "--reps", "1", "-n", "4", "-p", "90", "--step-tokens", "40",
                            "--profile")
        self.assertEqual(figures["machine"]["step_tokens"], 40)
        self.assertEqual((figures["profile"]["prompt"]["tokens"], figures["profile"]["prompt"]["steps"]), (40, 2))


class BenchGrid(Measured):
    def test_every_pair_is_a_row(self):
        figures = self.json("bench", "--random-weights", self.tiny(), "--contexts", "1,70,300", "--batches", "1,5", "--reps", "2", "-n", "8")
        self.assertEqual([(r["context"], r["batch"]) for r in figures["rows"]],
                         [(c, b) for c in (1, 70, 300) for b in (1, 5)])
        for row in figures["rows"]:
            rate = row["generated_tokens_per_second"]
            self.assertTrue(0 < rate["min"] <= rate["median"] <= rate["max"])
            self.assertAlmostEqual(row["ms_per_step"], 1e3 * row["batch"] / rate["median"], delta=1e-3 * row["ms_per_step"])
            self.assertEqual(row["fill_tokens_per_second"] > 0, row["context"] > 1)

    def test_long_contexts_and_wide_batches_come_to_an_end(self):
        """32,000 tokens are read once, not once for every repetition."""
        figures = self.json("bench", "--random-weights", self.tiny(num_hidden_layers=1), "--context", "16000", "--reps", "3", "-n", "4")
        self.assertGreater(figures["fill_tokens_per_second"], 0)
        figures = self.json("bench", "--random-weights", self.tiny(), "--batch", "96", "--context", "65", "--reps", "1", "-n", "4")
        self.assertGreater(figures["generated_tokens_per_second"]["median"], 0)

    def test_pair_that_does_not_fit_is_a_row_that_says_so(self):
        config = self.tiny(max_position_embeddings=512)
        words = ["bench", "--random-weights", config, "--contexts", "1,5000", "--reps", "1", "-n", "4"]
        rows = self.json(*words)["rows"]
        self.assertNotIn("misfit", rows[0])
        self.assertIn("at most 512", rows[1]["misfit"])
        self.assertIn("at most 512", self.succeeds(*words).stdout.decode().splitlines()[-2])
        done = run("bench", "--random-weights", config, "--contexts", "5000", "--reps", "1", "-n", "4")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"nothing could be measured", done.stderr)

    def test_wrong_lists_are_refused_before_the_model_is_opened(self):
        nowhere = self.folder / "nowhere"
        for text in ("1,x", "", "1,,2", "0", "1,", ",1", "99999999", "-1", ",".join(["1"] * 33)):
            self.fails(2, "bench", "-m", nowhere, "--contexts", text, says="context")
            self.fails(2, "bench", "-m", nowhere, "--batches", text, says="batch")
        self.fails(2, "bench", "--contexts", "1", "--context", "1", says="exclude each other")
        self.fails(2, "bench", "--batches", "1", "--batch", "1", says="exclude each other")
        self.fails(2, "bench", "--batches", "1", "--profile", says="--profile is for one")
        self.fails(2, "bench", "--batches", "1", "-p", "5", says="--prompt-tokens is for one")


class Profile(Measured):
    def trace(self, *words):
        path = self.folder / "trace.json"
        done = self.succeeds("profile", "--random-weights", self.tiny(), "-o", path, *words)
        return json.loads(path.read_text()), done

    def test_trace_is_what_chrome_reads(self):
        events, done = self.trace("--prompt-tokens", "200", "-n", "6")
        self.assertIn(b"generation step", done.stdout)
        lanes = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
        self.assertEqual(lanes[1], "host")
        self.assertIn(lanes[2], ("cpu", "cuda"))
        spans = [e for e in events if e["ph"] != "M"]
        for e in spans:
            self.assertEqual((e["ph"], e["pid"]), ("X", 1))
            self.assertGreaterEqual(e["ts"], 0)
            self.assertGreaterEqual(e["dur"], 0)
            self.assertIsInstance(e["args"], dict)
        steps = [e for e in spans if e["name"] == "step"]
        self.assertEqual(sum(e["args"]["tokens"] for e in steps), 200 + 5)  # the first answer comes with the prompt's end
        self.assertEqual(steps[-1]["args"]["kv_tokens"], 205)
        for name in ("plan", "launch", "wait and finish"):
            self.assertEqual(sum(e["name"] == name and e["tid"] == 1 for e in spans), len(steps))

    def test_ops_of_the_trace_follow_each_other_and_carry_their_bytes(self):
        events, _ = self.trace("--prompt-tokens", "8", "-n", "3", "--device", "cpu")
        ops = [e for e in events if e["ph"] == "X" and e["tid"] == 2]
        for before, after in zip(ops, ops[1:]):
            self.assertLessEqual(before["ts"] + before["dur"], after["ts"] + 0.01)
        head = [e for e in ops if e["name"] == "linear lm_head"]
        self.assertEqual(len(head), 3)
        self.assertEqual({e["args"]["bytes"] for e in head}, {500 * 64 * 2})
        self.assertEqual({e["args"]["layer"] for e in head}, {-1})
        self.assertEqual({e["args"]["layer"] for e in ops if e["name"] == "linear down"}, {0, 1})
        steps = [e for e in events if e["name"] == "step"]
        self.assertLess(ops[0]["ts"], steps[0]["ts"] + steps[0]["dur"])

    def test_trace_on_stdout_is_nothing_but_the_trace(self):
        done = self.succeeds("profile", "--random-weights", self.tiny(), "-o", "-", "-n", "2")
        self.assertGreater(len(json.loads(done.stdout)), 10)

    def test_wrong_usage(self):
        config = self.tiny()
        self.fails(2, "profile", "--random-weights", config, says="-o FILE is missing")
        self.fails(2, "profile", "--random-weights", config, "-o", "x", "-p", "x", "--prompt-tokens", "3", says="exclude each other")
        self.fails(2, "profile", "--random-weights", config, "-m", "x", "-o", "x", says="exclude each other")
        self.fails(1, "profile", "--random-weights", config, "-o", self.folder / "no/where", says="no/where: No such file")
        self.fails(1, "profile", "--random-weights", config, "-o", "/dev/null", "-p", "x", says="no tokenizer")
        self.fails(1, "profile", "--random-weights", config, "-o", "/dev/null", "--prompt-tokens", "50000", says="50000 tokens")


class Check(Measured):
    def test_cpu_agrees_with_the_reference_in_every_format(self):
        for family in ("llama-gqa2-f32", "llama-head-dim-f16", "qwen3-gqa8-bf16", "ernie-gqa8-bf16", "mistral-window-bf16"):
            words = ["check", "--layers", "-m", FAMILIES / family, "--device", "cpu"]
            for more in ([], ["--step-tokens", "1"], ["--step-tokens", "7"]):
                result = self.json(*words, *more)
                layers = json.loads((FAMILIES / family / "config.json").read_text())["num_hidden_layers"]
                self.assertEqual([r["layer"] for r in result["layers"]], list(range(-1, layers)))
                self.assertTrue(result["passed"])
                self.assertIsNone(result["first_bad"])
                self.assertGreater(result["logits"]["max"], 0)
                self.assertLess(result["logits"]["error"], result["bound"])
        result = self.json("check", "--layers", "-m", FIXTURES / "gguf/llama-linear-q8_0.gguf", "--device", "cpu", "--prompt-tokens", "40")
        self.assertEqual((result["tokens"], result["dtype"], result["passed"]), (40, "Q8_0", True))

    def test_error_beyond_the_bound_is_told_by_the_layer_and_the_exit_code(self):
        words = ["check", "--layers", "-m", FAMILIES / "qwen3-gqa8-bf16", "--device", "cpu", "--bound", "1e-9"]
        done = run(*words)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, rb"^nano-vllm: cpu and reference differ by more than the bound, first in layer \d\n$")
        self.assertIn(b"<- beyond the bound", done.stdout)
        done = run(*words, "--json")
        result = json.loads(done.stdout)
        self.assertEqual((done.returncode, result["passed"]), (1, False))
        self.assertGreater(result["layers"][result["first_bad"] + 1]["error"], 1e-9)

    def test_damaged_weights_do_not_pass(self):
        """NaN equals nothing, itself included."""
        source = FAMILIES / "llama-gqa2-f32"
        for path in source.iterdir():
            if path.name.startswith("reference"):
                continue
            data = bytearray(path.read_bytes())
            if path.suffix == ".safetensors":
                header = 8 + int.from_bytes(data[:8], "little")
                table = json.loads(data[8:header])
                for name, entry in table.items():
                    if name.startswith("model.layers.1.") and name.endswith("o_proj.weight"):
                        start = header + entry["data_offsets"][0]
                        data[start:start + 4] = b"\x00\x00\xc0\x7f"
            (self.folder / path.name).write_bytes(data)
        done = run("check", "--layers", "-m", self.folder, "--device", "cpu", "--json")
        result = json.loads(done.stdout)
        self.assertEqual((done.returncode, result["passed"], result["first_bad"]), (1, False, 1))
        self.assertIsNone(result["layers"][2]["error"])
        self.assertIn(b"no number", run("check", "--layers", "-m", self.folder, "--device", "cpu").stdout)

    def test_other_device_is_one_that_differs(self):
        words = ["check", "--layers", "--random-weights", self.tiny()]
        for device, other in (("cpu", "reference"), ("reference", "cpu")):
            result = self.json(*words, "--device", device)
            self.assertEqual((result["device"], result["against"]), (device, other))
        self.assertEqual(self.json(*words, "--device", "cpu", "--against", "cpu")["logits"]["error"], 0)

    def test_prompt_is_text_ids_or_stdin(self):
        from program import BYTES_GGUF
        words = ["check", "--layers", "-m", BYTES_GGUF]
        text = self.json(*words, "-p", "abcdef")
        self.assertEqual(text["tokens"], len(self.succeeds("tokenize", "-m", BYTES_GGUF, stdin=b"abcdef").stdout.split()))
        read = json.loads(self.succeeds(*words, "-p", "-", "--json", stdin=b"abcdef").stdout)
        self.assertEqual(read["layers"], text["layers"])
        self.assertEqual(self.json(*words, "--prompt-tokens", "9")["tokens"], 9)
        self.assertGreater(self.json(*words)["tokens"], 30)

    def test_wrong_usage(self):
        config = self.tiny()
        self.fails(2, "check", "--random-weights", config, says="--layers")
        self.fails(2, "check", "--layers", "--random-weights", config, "--bound", "0", says="--bound")
        self.fails(2, "check", "--layers", "--random-weights", config, "--against", "abacus", says="abacus")
        self.fails(2, "check", "--layers", "--random-weights", config, "--device", "abacus", says="abacus")
        self.fails(1, "check", "--layers", "--random-weights", config, "--prompt-tokens", "50000", says="at most 40960")
        self.fails(1, "check", "--layers", "--random-weights", config, "-p", "x", says="no tokenizer")


class Gpu(Measured):
    """Skipped where there is none."""
    def setUp(self):
        super().setUp()
        self.config = self.tiny()
        if gpu() != "yes":
            self.skipTest("needs a GPU")

    def test_limits_are_measured_once_and_kept(self):
        home = {"XDG_CACHE_HOME": str(self.folder / "cache")}
        words = ["bench", "--device", "cuda", "--random-weights", self.config, "--reps", "1", "-n", "4", "--json"]
        first = json.loads(self.succeeds(*words, env=home).stdout)["machine"]
        kept = json.loads((self.folder / "cache/nano-vllm/limits.json").read_text())
        self.assertEqual(list(kept), [first["device_id"]])
        second = json.loads(self.succeeds(*words, env=home).stdout)["machine"]
        self.assertEqual((first["limits_kept"], second["limits_kept"]), (False, True))
        self.assertAlmostEqual(kept[first["device_id"]]["read_gb_per_s"], second["read_gb_per_s"], delta=1)
        self.assertFalse(json.loads(self.succeeds(*words, "--measure-again", env=home).stdout)["machine"]["limits_kept"])

    def test_layers_agree_with_the_reference(self):
        for family in ("llama-gqa2-f32", "llama-head-dim-f16", "qwen3-gqa8-bf16", "ernie-gqa8-bf16"):
            for more in ([], ["--step-tokens", "1"]):
                words = ["check", "--layers", "-m", FAMILIES / family, "--device", "cuda", "--against", "reference", *more]
                self.assertTrue(self.json(*words)["passed"])

    def test_kernels_are_counted(self):
        figures = self.json("bench", "--device", "cuda", "--random-weights", self.config, "--reps", "1", "-n", "8", "--profile")
        self.assertGreater(figures["kernels_per_step"], 5)
        self.assertGreater(figures["profile"]["generate"]["sum_us"], 0)


if __name__ == "__main__":
    main()
