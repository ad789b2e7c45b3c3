"""The installed tree: exported symbols, program, header, pkg-config, and the example built against them."""
import os
import subprocess

from program import BUILD, BYTES_GGUF, LIBRARY, SANITIZED, SOURCE, Case, chat_model, main, run

class Install(Case):
    def test_library_exports_nvllm_only(self):
        table = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True).stdout
        names = [line.split()[-1] for line in table.splitlines()]
        self.assertGreater(len(names), 20)
        self.assertEqual([n for n in names if not n.startswith("nvllm_")], [])

    def test_library_exports_what_the_header_declares(self):
        import re
        header = (SOURCE / "include/nanovllm.h").read_text()
        declared = set(re.findall(r"^NVLLM_API[^;]*?\b(nvllm_\w+)\(", header, re.M))
        table = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True).stdout
        self.assertEqual(declared, {line.split()[-1] for line in table.splitlines()})

    def installed(self):
        """A tree as `make install PREFIX=/usr DESTDIR=...` makes it."""
        subprocess.run(["cmake", "--install", BUILD, "--prefix", "/usr"], env={**os.environ, "DESTDIR": str(self.folder)},
                       check=True, capture_output=True)
        return self.folder / "usr"

    def test_program_runs_from_the_installed_tree(self):
        prefix = self.installed()
        demo = prefix / "share/nano-vllm/models/demo"
        if not demo.exists():
            demo.mkdir(parents=True)
            chat_model(demo)
        program = str(prefix / "bin/nano-vllm")
        done = self.succeeds("run", "-n", "4", program=program, cwd="/")
        self.assertRegex(done.stderr.decode(), "generated [1-4] tokens")
        for path in ("share/man/man1/nano-vllm.1", "share/bash-completion/completions/nano-vllm", "lib/libnanovllm.a"):
            self.assertTrue((prefix / path).stat().st_size > 0, path)

    def test_example_builds_with_pkg_config_and_runs(self):
        if SANITIZED:
            self.skipTest("an example without the sanitizer's runtime cannot link this build")
        prefix = self.installed()
        env = {**os.environ, "PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig"), "LD_LIBRARY_PATH": str(prefix / "lib")}
        program = self.folder / "simple"
        for extra, library_path in (([], True), (["--static"], False)):
            flags = subprocess.run(["pkg-config", "--cflags", "--libs", *extra, "nanovllm"], env=env, capture_output=True,
                                   text=True, check=True).stdout.split()
            if extra:
                (prefix / "lib/libnanovllm.so").unlink()
            subprocess.run(["cc", "-std=c11", "-Wall", "-Werror", SOURCE / "examples/simple.c", "-o", program, *flags], check=True)
            done = run(BYTES_GGUF, "abc", program=str(program), env=env if library_path else None)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertGreater(len(done.stdout), 1)

    def test_header_is_cxx_too(self):
        text = '#include "nanovllm.h"\nint main() { return nvllm_version() == nullptr; }\n'
        if subprocess.run(["sh", "-c", "command -v c++"], capture_output=True).returncode:
            self.skipTest("no C++ compiler")
        subprocess.run(["c++", "-x", "c++", "-fsyntax-only", "-Wall", "-Werror", f"-I{SOURCE}/include", "-"],
                       input=text.encode(), check=True)


if __name__ == "__main__":
    main()
