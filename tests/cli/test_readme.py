"""The commands that README shows do what it says: each shell block is run, in order, in a copy of nothing but links."""
import re
import subprocess

from program import BUILD, SOURCE, Case, main


class Readme(Case):
    def blocks(self):
        return re.findall(r"^```sh\n(.*?)^```$", (SOURCE / "README.md").read_text(), re.M | re.S)

    def test_commands_of_the_program_work(self):
        self.need(SOURCE / "models/demo/config.json")
        (self.folder / "build").mkdir()
        (self.folder / "build/release").symlink_to(BUILD)
        (self.folder / "models").symlink_to(SOURCE / "models")
        blocks = [b for b in self.blocks() if "build/release/nano-vllm" in b]
        self.assertTrue(blocks)
        for block in blocks:
            done = subprocess.run(["sh", "-ec", block], cwd=self.folder, capture_output=True, timeout=300)
            self.assertEqual(done.returncode, 0, block + done.stderr.decode())

    def test_targets_of_make_exist(self):
        makefile = (SOURCE / "Makefile").read_text()
        for document in ("README.md", "CONTRIBUTING.md"):
            for target in set(re.findall(r"\bmake ([a-z]+)`", (SOURCE / document).read_text())):
                self.assertRegex(makefile, rf"(?m)^{target}:", f"{document}: make {target}")

    def test_links_and_paths_exist(self):
        for document in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
            for path in re.findall(r"\]\(([^)#:]+)\)", (SOURCE / document).read_text()):
                self.assertTrue((SOURCE / path).exists(), f"{document}: {path}")

    def test_commands_of_the_table_are_the_programs(self):
        from program import COMMANDS
        text = (SOURCE / "README.md").read_text()
        for command in COMMANDS:
            self.assertIn(f"`{command}`", text)


if __name__ == "__main__":
    main()
