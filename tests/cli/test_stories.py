"""Acceptance on stories260K, a real trained model: golden text, perplexity, start-up; from both file formats."""
import json
import lzma
import time

from program import SANITIZED, SHARED, Case, gpu, main

HF = SHARED / "stories260k/hf"
GGUF = SHARED / "stories260k/stories260K.gguf"
TEXT = SHARED / "text/tinystories.txt.xz"
BEGINNING = ("Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw "
             "a big, red ball. She wanted to play with it, but it was too high.\nLily's mom said, \"Lily, let's go to the "
             "park.\" Lily was sad and didn't know what to do.")


class Stories(Case):
    def test_greedy_text_is_the_golden_text(self):
        self.need(HF)
        for model in (HF, GGUF):
            done = self.succeeds("run", "-m", model, "--raw", "-p", "", "-n", "200", "--temperature", "0")
            self.assertEqual(done.stdout.decode().lstrip()[:len(BEGINNING)], BEGINNING)

    def test_greedy_ids_are_the_golden_ids(self):
        self.need(HF)
        golden = json.loads((HF / "golden_greedy.json").read_text())["greedy_ids"]
        for model in (HF, GGUF):
            devices = [["--device", "cuda"], ["--device", "cuda", "--fusion", "off"]] if gpu() == "yes" else []
            for more in ([], ["--isa", "scalar"], ["--isa", "avx2"], ["--device", "reference"], *devices):
                done = self.succeeds("run", "-m", model, "--raw", "-p", "", "-n", "63", "--temperature", "0", "--json", *more)
                self.assertEqual([1] + [t["id"] for t in json.loads(done.stdout)["tokens"]], golden)

    def test_perplexity_is_the_published_one(self):
        self.need(HF)
        path = self.folder / "text"
        path.write_bytes(lzma.open(TEXT).read(40000))
        for model in (HF, GGUF):
            done = json.loads(self.succeeds("perplexity", "-m", model, "-f", path, "--context", "256", "--json").stdout)
            self.assertEqual((done["windows"], done["scored_tokens"]), (74, 9398))
            self.assertAlmostEqual(done["perplexity"], 9.7953, delta=0.002)

    def test_first_token_comes_within_30_ms(self):
        """The best of several, since other tests may run beside this one."""
        self.need(HF)
        if SANITIZED:
            self.skipTest("sanitizers take their time")
        for model in (HF, GGUF):
            best = 1.0
            for _ in range(20):
                start = time.perf_counter()
                self.succeeds("run", "-m", model, "--device", "cpu", "--raw", "-p", "", "-n", "1", "--temperature", "0")
                best = min(best, time.perf_counter() - start)
            self.assertLess(best, 0.030)

    def test_memory_is_weights_and_cache_and_little_more(self):
        self.need(HF)
        if SANITIZED:
            self.skipTest("sanitizers take their memory")
        for model in (HF, GGUF):
            done = json.loads(self.succeeds("bench", "-m", model, "--reps", "1", "--json").stdout)
            cost = done["cost"]
            self.assertLess(cost["peak_rss_bytes"], done["model"]["weight_bytes"] + cost["kv_bytes"] + (64 << 20))


if __name__ == "__main__":
    main()
