"""What the tests of the program share: running it, and small models to run it on.

CTest passes the paths in NVLLM_TEST_*; without them the release build is used. Exit code 77: everything was skipped.
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("NVLLM_TEST_BUILD", SOURCE / "build/release"))
PROGRAM = os.environ.get("NVLLM_TEST_PROGRAM", str(BUILD / "nano-vllm"))
LIBRARY = os.environ.get("NVLLM_TEST_LIBRARY", str(BUILD / "libnanovllm.so"))
SHARED = Path(os.environ.get("NVLLM_TEST_SHARED", SOURCE.parent / "shared/data"))
FIXTURES = SOURCE / "tests/fixtures"
COMMANDS = ["run", "chat", "serve", "bench", "profile", "check", "perplexity", "tokenize", "detokenize", "render", "inspect"]
SANITIZED = "NVLLM_TEST_SANITIZED" in os.environ
NOTICE = "nano-vllm: the CPU is used: "  # where a GPU was looked for and none can be used
BYTES_GGUF = FIXTURES / "gguf/llama-llama3-f32.gguf"  # its tokenizer knows every byte


def run(*arguments, stdin=b"", program=PROGRAM, env=None, timeout=120, cwd=None):
    """The finished process; stdout and stderr are bytes."""
    return subprocess.run([program, *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout, cwd=cwd,
                          env={**os.environ, **(env or {})})


def gpu():
    """What this build and machine have: "yes", "no GPU", or "no CUDA" in the build."""
    done = run("run", "-m", BYTES_GGUF, "-p", "abc", "-n", "3", "--ignore-eos", "--device", "cuda")
    if done.returncode == 0:
        return "yes"
    return "no CUDA" if b"no CUDA backend" in done.stderr else "no GPU"


# ---- A chat model of 96 tokens: the weights of a family fixture with a tokenizer and a template of our own ----------

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'-()/\u0120\u010a"  # Ġ space, Ċ newline
SPECIALS = ["<unk>", "<s>", "</s>", "<|user|>", "<|system|>", "<|assistant|>"]
TEMPLATE = ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}")


def tokenizer_json():
    vocabulary = {token: i for i, token in enumerate(SPECIALS + list(LETTERS))}
    special = [{"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for i, token in enumerate(SPECIALS)]
    post = {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": post, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary,
                      "merges": []}}


def chat_model(folder, family="llama-gqa2-f32", template=TEMPLATE, **config):
    """Makes the model in `folder`; `config` changes fields of config.json."""
    folder = Path(folder)
    for path in (FIXTURES / "families" / family).glob("*.safetensors"):
        if not path.name.startswith("reference"):
            (folder / path.name).symlink_to(path)
    values = json.loads((FIXTURES / "families" / family / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **config}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


class Case(unittest.TestCase):
    """A test case with a folder of its own and the checks that all share."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name)

    def need(self, path):
        if not Path(path).exists():
            self.skipTest(f"needs {path}")

    def succeeds(self, *arguments, **options):
        done = run(*arguments, **options)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        return done

    def fails(self, code, *arguments, says="", **options):
        """One sentence on stderr (and, for wrong usage, where to look), nothing on stdout."""
        done = run(*arguments, **options)
        text = "".join(line for line in done.stderr.decode().splitlines(True) if not line.startswith(NOTICE))
        self.assertEqual(done.returncode, code, text)
        self.assertEqual(done.stdout, b"")
        self.assertTrue(text.startswith("nano-vllm: "), text)
        self.assertIn(says, text)
        hint = text.splitlines()[1:]
        self.assertTrue(not hint or (code == 2 and len(hint) == 1 and hint[0].startswith("Try: ")), text)
        return text


def main():
    program = unittest.main(exit=False, verbosity=1)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if result.testsRun and len(result.skipped) == result.testsRun else 0)
