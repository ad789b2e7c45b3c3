"""The program and its server on the emulated GPU: the CPU's text, whole and fused; a card that fails, or is too small.

Runs in builds with NVLLM_CUDA=EMULATED only; NVLLM_EMULATOR (runtime.cpp) says what the card is like.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serve"))
from server import Server, in_threads  # noqa: E402
from program import BYTES_GGUF, Case, chat_model, main, run  # noqa: E402

GREEDY = ["-m", BYTES_GGUF, "-n", "12", "--ignore-eos", "--temperature", "0"]
ILLEGAL = "emulated GPU 9.0: error while running a step: an illegal memory access was encountered"


class Program(Case):
    def test_the_gpu_writes_what_the_cpu_writes(self):
        for words in (["-p", "abc"], ["-p", "a longer prompt " * 12]):
            expected = self.succeeds("run", *GREEDY, *words, "--device", "cpu").stdout
            for options in ([], ["--fusion", "off"]):
                for card in ("major=9", "major=9,code=8", "major=8,shared=99", "multiprocessors=17"):
                    done = self.succeeds("run", *GREEDY, *words, "--device", "cuda", *options, env={"NVLLM_EMULATOR": card})
                    self.assertEqual(done.stdout, expected, (words, options, card))

    def test_layers_are_close_to_the_reference(self):
        self.succeeds("check", "-m", chat_model(self.folder, family="llama-gqa8-llama3-bf16"), "--device", "cuda", "--layers")

    def test_a_step_that_fails_ends_the_run_with_the_cards_sentence(self):
        for launch in (1, 7, 50):  # in the prompt's step, and later
            done = self.run_failing(launch)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(ILLEGAL, done.stderr.decode())

    def run_failing(self, launch):
        return run("run", *GREEDY, "-p", "abc", "--device", "cuda", env={"NVLLM_EMULATOR": f"fail={launch}"})

    def test_a_card_without_room_is_named_with_figures(self):
        self.fails(1, "run", *GREEDY, "-p", "abc", "--device", "cuda", env={"NVLLM_EMULATOR": "memory=1"},
                   says="GB of memory are available on emulated GPU 9.0: lower the context")


class FailingServer(Case):
    def test_all_requests_end_when_the_card_fails_and_later_ones_are_told(self):
        model = chat_model(self.folder)
        with Server(model, "--device", "cuda", env={"NVLLM_EMULATOR": "fail=300"}) as server:
            fields = {"max_tokens": 200, "ignore_eos": True, "temperature": 0}
            answers = []
            in_threads([lambda: answers.append(server.chat("question", **fields))] * 6)
            for answer in answers + [server.chat("and now", **fields)]:
                self.assertEqual(answer.status, 500, answer.body)
                self.assertIn("illegal memory access", answer.json["error"]["message"])
            self.assertEqual(server.get("/metrics").status, 200)
            health = server.get("/health")
            self.assertEqual(health.status, 503)
            self.assertIn("illegal memory access", health.json["error"]["message"])


if __name__ == "__main__":
    main()
