"""Text, ids and perplexity against Hugging Face transformers, where a virtual environment with it is at hand."""
import os
import subprocess

from program import PROGRAM, SANITIZED, SHARED, SOURCE, Case, main

PYTHON = os.environ.get("NVLLM_TEST_PYTHON", str(SOURCE / "build/venv/bin/python"))
COMPARE = SOURCE / "tests/reference/compare_transformers.py"


class Reference(Case):
    def compare(self, model, *options):
        if SANITIZED:
            self.skipTest("compared in the release build")
        self.need(PYTHON)
        self.need(model)
        done = subprocess.run([PYTHON, COMPARE, model, "--program", PROGRAM, *options], capture_output=True, timeout=500)
        self.assertEqual(done.returncode, 0, (done.stdout + done.stderr).decode(errors="replace"))

    def test_stories_equal_transformers(self):
        self.compare(SHARED / "stories260k/hf")

    def test_demo_equals_transformers(self):
        self.compare(SOURCE / "models/demo")


if __name__ == "__main__":
    main()
