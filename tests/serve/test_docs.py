"""docs/server.md does what it says: its blocks are run against a server, in order."""
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from server import SOURCE, VENV, Server, chat_model, main, run

BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", (SOURCE / "docs/server.md").read_text(), re.S)


class Docs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        # Like the block that starts it, but on a free port and on a model that is always there.
        cls.server = Server(chat_model(Path(holder.name)), "--served-model-name", "demo")

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def blocks(self, kind):
        for language, text in BLOCKS:
            if language == kind:
                yield re.sub("^   ", "", text, flags=re.M).replace("http://127.0.0.1:8000", self.server.url)

    def test_options_of_the_start_exist(self):
        start = next(self.blocks("sh"))
        self.assertIn("nano-vllm serve", start)
        unit = (SOURCE / "packaging/nano-vllm.service").read_text().replace("enable --now", "")
        known = run("serve", "--help").stdout.decode()
        for option in re.findall(r"(?<!-)--[a-z][a-z-]+", (SOURCE / "docs/server.md").read_text() + unit):
            self.assertIn(option, known)

    @unittest.skipUnless(shutil.which("curl"), "needs curl")
    def test_curl(self):
        commands = [b for b in self.blocks("sh") if "curl" in b]
        self.assertEqual(len(commands), 3)
        for command, says in zip(commands, ('"chat.completion"', "data: [DONE]", '"count"')):
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(says, done.stdout)

    def test_python(self):
        python = VENV if VENV.exists() else sys.executable
        scripts = list(self.blocks("python"))
        self.assertEqual(len(scripts), 2)
        ran = 0
        for script in scripts:
            module = re.search(r"from (\w+) import", script)[1]
            if subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode:
                continue
            done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(done.stdout.strip(), done.stderr)
            ran += 1
        if not ran:
            self.skipTest("needs the openai or the langchain-openai package")


if __name__ == "__main__":
    main()
