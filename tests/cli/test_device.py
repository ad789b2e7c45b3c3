"""Where the program runs and what it takes there: --device, the notice of the CPU, --kv-memory, inspect memory."""
import json
import shutil
import subprocess

from program import BYTES_GGUF, FIXTURES, NOTICE, SOURCE, Case, chat_model, gpu, main, run

SHORT = ["-m", BYTES_GGUF, "-p", "abc", "-n", "3", "--ignore-eos"]


class Device(Case):
    def test_cuda_that_cannot_be_used_is_one_sentence(self):
        if gpu() == "yes":
            self.skipTest("there is a GPU")
        for name in ("cuda", "cuda:1"):
            self.fails(1, "run", *SHORT, "--device", name, says="cuda" if gpu() == "no CUDA" else "; ")

    def test_a_device_that_is_none_is_wrong_usage(self):
        for name in ("cuda:", "cuda:x", "cuda:-1", "cuda:99999", "cpu:1", "gpu"):
            self.assertIn(run("run", *SHORT, "--device", name).returncode, (1, 2) if name.startswith("cuda") else (2,), name)

    def test_the_cpu_is_noticed_in_one_line_where_a_gpu_was_looked_for(self):
        expected = 1 if gpu() == "no GPU" else 0
        texts = self.folder / "text"
        texts.write_text("abcdefgh " * 8)
        for words in (["run", *SHORT], ["run", *SHORT, "--device", "auto"],
                      ["bench", "-m", BYTES_GGUF, "-p", "4", "-n", "2", "-r", "1"],
                      ["perplexity", "-m", BYTES_GGUF, "-f", texts, "--context", "8"]):
            self.assertEqual(self.succeeds(*words).stderr.decode().count(NOTICE), expected, words)
            for quiet in (["--device", "cpu"], ["--device", "reference"], ["--isa", "scalar"]):
                if "auto" not in words:
                    self.assertNotIn(NOTICE, self.succeeds(*words, *quiet).stderr.decode(), quiet)


class Driver(Case):
    """With a driver that fails in a known way; see tests/support/fake_driver.c."""

    def setUp(self):
        super().setUp()
        if gpu() != "no GPU" or not shutil.which("cc"):
            self.skipTest("needs a build with CUDA, cc, and a machine without a GPU")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", self.folder / "libcuda.so.1", SOURCE / "tests/support/fake_driver.c"],
                       check=True)

    def test_each_failure_says_what_to_do(self):
        for setting, says in (({"FAKE_VERSION": "11040"}, "the NVIDIA driver is for CUDA 11.4, and CUDA "),
                              ({"FAKE_INIT": "100"}, "finds no GPU; see what nvidia-smi"),
                              ({"FAKE_INIT": "803"}, "different versions; restart"),
                              ({"FAKE_INIT": "802"}, "not ready; start its services"),
                              ({"FAKE_INIT": "46"}, "busy, or lets only one process in"),
                              ({"FAKE_INIT": "2"}, "out of memory"),
                              ({"FAKE_INIT": "999"}, "cudaErrorUnknown")):
            env = {"LD_LIBRARY_PATH": str(self.folder), **setting}
            self.fails(1, "run", *SHORT, "--device", "cuda", says=says, env=env)
            done = self.succeeds("run", *SHORT, env=env)
            self.assertEqual(done.stderr.decode().count(NOTICE), 1, done.stderr)
            self.assertNotIn(b"choose the device", done.stderr)


class Memory(Case):
    def plan(self, *options):
        return json.loads(self.succeeds("inspect", "memory", "-m", BYTES_GGUF, "--json", *options).stdout)

    def bytes_of(self, *options):
        return {part["part"]: part["bytes"] for part in self.plan(*options)["plan"]["parts"]}

    def test_parts_add_up(self):
        parts = self.bytes_of("--device", "cpu")
        self.assertEqual(parts["sum"], sum(parts[name] for name in ("weights", "kv_cache", "activations", "op_scratch")))
        self.assertGreater(parts["total"], parts["available"])

    def test_a_gpu_keeps_a_reserve_and_says_what_is_free(self):
        if gpu() != "yes":
            self.skipTest("needs a GPU")
        plan = self.plan("--device", "cuda")["plan"]
        parts = {part["part"]: part["bytes"] for part in plan["parts"]}
        names = ("weights", "kv_cache", "activations", "op_scratch", "headroom")
        self.assertEqual(parts["sum"], sum(parts[name] for name in names))
        self.assertTrue(all(parts[name] > 0 for name in names) and parts["total"] >= parts["available"] and plan["fits"], parts)
        says = "GB of memory are available on " + plan["device_name"]
        self.fails(1, "run", *SHORT, "--device", "cuda", "--kv-memory", "100T", says=says)

    def test_cache_is_tokens_times_bytes_per_token(self):
        for context, sequences in ((64, 1), (64, 4), (128, 2)):
            plan = self.plan("--context", context, "--max-sequences", sequences, "--device", "cpu")
            parts = {part["part"]: part["bytes"] for part in plan["plan"]["parts"]}
            self.assertEqual(plan["plan"]["kv_tokens"], context * sequences)
            self.assertEqual(parts["kv_cache"], context * sequences * plan["kv_bytes_per_token"])

    def test_kv_memory_bounds_the_cache(self):
        for size, most in (("20K", 20 << 10), ("0.5M", 1 << 19), ("1MiB", 1 << 20), ("30000", 30000)):
            plan = self.plan("--kv-memory", size, "--device", "cpu")
            tokens, each = plan["plan"]["kv_tokens"], plan["kv_bytes_per_token"]
            self.assertLessEqual(tokens * each, most)
            self.assertGreater((tokens + 16) * each, most)

    def test_what_does_not_fit_is_shown_and_not_opened(self):
        model = chat_model(self.folder, max_position_embeddings=1073741824)
        words = ["--context", "1073741824", "--device", "cpu"]
        plan = json.loads(self.succeeds("inspect", "memory", "-m", model, "--json", *words).stdout)
        self.assertFalse(plan["plan"]["fits"])
        self.fails(1, "run", "-m", model, "-p", "a", *words, says="GB of memory are available: lower the context")

    def test_kv_memory_is_an_option_of_all_that_run_a_model(self):
        text = self.folder / "text"
        text.write_text("abcdefgh " * 8)
        for words in (["run", *SHORT], ["chat", "-m", FIXTURES / "../../models/demo"],
                      ["bench", "-m", BYTES_GGUF, "-p", "4", "-n", "2", "-r", "1"],
                      ["perplexity", "-m", BYTES_GGUF, "-f", text, "--context", "8"]):
            self.succeeds(*words, "--kv-memory", "4M", "--device", "cpu", stdin=b"")
        for command in ("run", "chat", "serve", "bench", "perplexity", "inspect"):
            for wrong in ("lots", "0", "-1", "4X", "4GG", "1e400"):
                self.fails(2, command, "--kv-memory=" + wrong, says="is not a size like 512M or 4G")
        self.fails(1, "run", *SHORT, "--kv-memory", "8", "--device", "cpu", says="KV cache hold")


if __name__ == "__main__":
    main()
