"""Broken model files: exit code 1 and one sentence that names the file, the tensor or the field."""
import json
import shutil
import struct

from program import BYTES_GGUF, FIXTURES, Case, main

FAMILY = FIXTURES / "families/llama-gqa2-f32"
NORM = "model.norm.weight"


class BadModel(Case):
    def setUp(self):
        super().setUp()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(FAMILY / name, self.folder / name)

    def refuses(self, says, model=None):
        self.fails(1, "bench", "-m", model or self.folder, "--reps", "1", says=says)


class BadSafetensors(BadModel):
    def rewrite(self, change):
        """change(header) edits the table of tensors; the data stay."""
        path = self.folder / "model.safetensors"
        data = path.read_bytes()
        end = 8 + struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:end])
        change(header)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[end:])

    def test_missing_weights(self):
        (self.folder / "model.safetensors").unlink()
        self.refuses("model.safetensors")

    def test_truncated(self):
        path = self.folder / "model.safetensors"
        whole = path.read_bytes()
        for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            self.refuses("model.safetensors")

    def test_header_longer_than_the_file(self):
        path = self.folder / "model.safetensors"
        for length in (1 << 20, 1 << 40, (1 << 64) - 1):
            path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
            self.refuses("model.safetensors")

    def test_header_that_is_not_json(self):
        path = self.folder / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[8] = ord("x")
        path.write_bytes(data)
        self.refuses("model.safetensors")

    def test_overlapping_tensors(self):
        def change(header):
            names = [n for n in header if n != "__metadata__" and header[n]["shape"] == header[NORM]["shape"]]
            header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]
        self.rewrite(change)
        self.refuses("model.safetensors")

    def test_shape_product_that_overflows(self):
        self.rewrite(lambda header: header[NORM].update(shape=[1 << 62, 1 << 62]))
        self.refuses(NORM)

    def test_data_beyond_the_file(self):
        self.rewrite(lambda header: header[NORM].update(data_offsets=[1 << 50, (1 << 50) + 128]))
        self.refuses(NORM)

    def test_unsupported_type(self):
        self.rewrite(lambda header: header[NORM].update(dtype="F8_E4M3", shape=[128]))
        self.refuses("F8_E4M3")

    def test_missing_tensor_is_named(self):
        self.rewrite(lambda header: header.update({"model.other.weight": header.pop(NORM)}))
        self.refuses(NORM)

    def test_tensor_of_another_shape_is_named(self):
        self.rewrite(lambda header: header[NORM].update(shape=[4, 8]))
        self.refuses(NORM)


class BadConfig(BadModel):
    def refuses_config(self, says, **change):
        values = {**json.loads((FAMILY / "config.json").read_text()), **change}
        (self.folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
        self.refuses(says)

    def test_fields_are_named(self):
        for field in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size"):
            for wrong in (None, 0, -1, "many", 1.5, [], 1 << 40):
                with self.subTest(field=field, wrong=wrong):
                    self.refuses_config(field, **{field: wrong})

    def test_heads_that_do_not_divide(self):
        self.refuses_config("num_key_value_heads", num_key_value_heads=3)

    def test_config_that_is_no_object(self):
        for text in ("", "[]", "{", "\xff", '{"a": 1, "a": 2}'):
            (self.folder / "config.json").write_bytes(text.encode("latin-1"))
            self.refuses("config.json")

    def test_missing_config(self):
        (self.folder / "config.json").unlink()
        self.refuses("config.json")


class BadGguf(BadModel):
    def test_absurd_counts_and_versions(self):
        whole = BYTES_GGUF.read_bytes()
        path = self.folder / "model.gguf"
        for at, value in ((8, 1 << 60), (8, (1 << 64) - 1), (16, 1 << 60), (16, (1 << 64) - 1)):
            path.write_bytes(whole[:at] + struct.pack("<Q", value) + whole[at + 8:])
            self.refuses("model.gguf", path)
        for version in (0, 1, 4, 0x03000000):
            path.write_bytes(whole[:4] + struct.pack("<I", version) + whole[8:])
            self.refuses("model.gguf", path)

    def test_truncated(self):
        whole = BYTES_GGUF.read_bytes()
        path = self.folder / "model.gguf"
        for size in (3, 4, 23, 24, 200, len(whole) // 2, len(whole) - 64):
            path.write_bytes(whole[:size])
            self.refuses("model.gguf", path)


if __name__ == "__main__":
    main()
