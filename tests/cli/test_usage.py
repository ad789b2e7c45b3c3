"""Command line: help, versions, wrong usage, sentences for bad input. No model runs here."""
import subprocess

from program import COMMANDS, Case, main, run


class Help(Case):
    def test_help_of_the_program_names_every_command(self):
        for words in (["--help"], ["-h"], ["help"]):
            done = self.succeeds(*words)
            self.assertEqual(done.stderr, b"")
            for command in COMMANDS:
                self.assertIn(f"\n  {command} ".encode(), done.stdout)

    def test_help_of_every_command_is_on_stdout(self):
        for command in COMMANDS:
            texts = {self.succeeds(*words).stdout for words in ([command, "--help"], [command, "-h"], ["help", command])}
            self.assertEqual(len(texts), 1)
            text = texts.pop().decode()
            self.assertTrue(text.startswith(f"nano-vllm {command}: "))
            self.assertIn("--model", text)
            self.assertLessEqual(max(map(len, text.splitlines())), 100)

    def test_help_wins_over_what_is_missing(self):
        self.succeeds("perplexity", "--help", "-m", "nowhere")

    def test_version_is_a_version(self):
        self.assertRegex(self.succeeds("--version").stdout, rb"^nano-vllm \d+\.\d+\.\d+\n$")

    def test_man_page_and_completion_name_every_command(self):
        page, script = self.succeeds("--man").stdout.decode(), self.succeeds("--completion").stdout
        for command in COMMANDS:
            self.assertIn(f".SS nano\\-vllm {command} ", page)
            self.assertIn(f"        {command}) words=".encode(), script)
        subprocess.run(["bash", "-n"], input=script, check=True)


class Usage(Case):
    def test_no_command(self):
        self.fails(2, says="no command")

    def test_mistyped_command_is_suggested(self):
        for wrong, right in (("rnu", "run"), ("tokenise", "tokenize"), ("perplexiti", "perplexity"), ("cat", "chat")):
            self.fails(2, wrong, says=f"did you mean {right}?")
        self.assertNotIn("did you mean", self.fails(2, "frobnicate", says="unknown command 'frobnicate'"))

    def test_mistyped_option_is_suggested(self):
        self.fails(2, "run", "--temprature", "1", says="unknown option --temprature; did you mean --temperature?")
        self.fails(2, "run", "--top", "1", says="--top is short for several options")
        self.fails(2, "run", "-Z", says="unknown option -Z")
        self.fails(2, "--jsn", "run", says="before a command")

    def test_wrong_values_are_named(self):
        self.fails(2, "run", "-n", "ten", says="--max-tokens: 'ten' is not a whole number")
        self.fails(2, "run", "-n", "-1", says="out of range")
        self.fails(2, "run", "-n", "99999999999999999999", says="out of range")
        self.fails(2, "run", "--temperature", "nan", says="--temperature: 'nan' is not a number")
        self.fails(2, "run", "--top-p", "1.5", says="out of range")
        self.fails(2, "run", "--logprobs", "21", says="out of range")
        self.fails(2, "run", "--fusion", "maybe", says="--fusion: 'maybe' is neither on, ops nor off")
        self.fails(2, "run", "-n", says="--max-tokens needs a value")
        self.fails(2, "run", "--chat=yes", says="--chat takes no value")

    def test_arguments_that_are_not_taken(self):
        self.fails(2, "run", "hello", says="unexpected argument 'hello'")
        self.fails(2, "inspect", "weights", says="'weights' is not one of config|tensors|graph|memory")
        self.fails(2, "inspect", "graph", "memory", says="unexpected argument 'memory'")

    def test_options_that_exclude_each_other(self):
        self.fails(2, "run", "--chat", "--raw", says="exclude each other")
        self.fails(2, "run", "--raw", "--system", "x", says="exclude each other")
        self.fails(2, "bench", "-m", "a", "--random-weights", "b", says="exclude each other")
        self.fails(2, "bench", "--dtype", "f32", says="--dtype is for --random-weights")
        self.fails(2, "render", "-m", "a", "--template", "b", "--context", "c", says="exclude each other")

    def test_options_that_are_needed(self):
        self.fails(2, "perplexity", says="-f FILE is missing")
        self.fails(2, "render", says="--context is missing")


class BadInput(Case):
    def test_missing_model_is_named(self):
        nowhere = self.folder / "nowhere"
        for command in (["run", "-p", "x"], ["chat"], ["bench"], ["tokenize"], ["detokenize"], ["inspect"]):
            self.fails(1, *command, "-m", nowhere, says=str(nowhere))

    def test_folder_without_a_model_is_named(self):
        self.fails(1, "run", "-p", "x", "-m", self.folder, says=str(self.folder))

    def test_missing_file_is_named(self):
        nowhere = self.folder / "nowhere"
        self.fails(1, "perplexity", "-f", nowhere, says=f"{nowhere}: No such file or directory")
        self.fails(1, "render", "--template", nowhere, "--context", "-", stdin=b"{}", says=str(nowhere))
        self.fails(1, "render", "--template", "-", "--context", nowhere, says=str(nowhere))

    def test_invalid_utf8_on_stdin_is_named_by_its_byte(self):
        for command in (["run", "-p", "-"], ["tokenize"], ["detokenize"], ["perplexity", "-f", "-"]):
            for text, at in ((b"ab\xff", 2), (b"\xc0\xaf", 0), (b"x\xed\xa0\x80", 1), (b"\xf5\x80\x80\x80", 0), (b"\xe2\x82", 0)):
                self.fails(1, *command, stdin=text, says=f"standard input: byte {at} (0x{text[at]:02x}) is not valid UTF-8")
        self.fails(1, "run", "-p", b"ab\xff".decode(errors="surrogateescape"), says="--prompt: byte 2")

    def test_ids_that_are_no_ids(self):
        for text in ("1 x", "-1", "1.5", "99999999999", "0x10"):
            self.fails(1, "detokenize", stdin=text.encode(), says="is not a token id")

    def test_output_that_cannot_be_written(self):
        with open("/dev/full", "wb") as full:
            from program import PROGRAM
            done = subprocess.run([PROGRAM, "--help"], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual((done.returncode, done.stderr), (1, b"nano-vllm: standard output: No space left on device\n"))


class Render(Case):
    def render(self, template, context="{}", *options):
        path = self.folder / "t.jinja"
        path.write_text(template)
        return ["render", "--template", path, "--context", "-", *options], context.encode()

    def test_text_is_exact(self):
        words, stdin = self.render("{{ a }}|{% for m in messages %}{{ m.role }} {% endfor %}\n",
                                   '{"a": "\u00e9", "messages": [{"role": "user"}]}')
        self.assertEqual(self.succeeds(*words, stdin=stdin).stdout.decode(), "\u00e9|user ")

    def test_now_is_what_was_given(self):
        words, stdin = self.render("{{ strftime_now('%d %b %Y') }}", "{}", "--now", "2024-07-26 12:00:00")
        self.assertEqual(self.succeeds(*words, stdin=stdin).stdout, b"26 Jul 2024")

    def test_errors_of_templates(self):
        for template, says in (("{{ raise_exception('no tools here') }}", "no tools here"), ("{% if %}", ""), ("{{ a.b.c }}", "")):
            words, stdin = self.render(template)
            self.fails(1, *words, stdin=stdin, says=says)

    def test_templates_without_end_are_stopped(self):
        loop = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
        deep = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"
        wide = "{% set ns = namespace(s='x') %}{% for a in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"
        for template in (loop, deep, wide):
            words, stdin = self.render(template)
            self.fails(1, *words, stdin=stdin, timeout=60)

    def test_context_that_is_not_an_object(self):
        for context in ("[1]", "{", "", "nonsense"):
            words, stdin = self.render("x", context)
            self.fails(1, *words, stdin=stdin)


if __name__ == "__main__":
    main()
