#!/usr/bin/env python3
"""Writes src/text/jinja/case_table.h: the characters whose upper or title case is more than one character.

Usage: tools/make_case_table.py > src/text/jinja/case_table.h"""


def row(text):
    points = [ord(c) for c in text] + [0] * (3 - len(text))
    return "{" + ", ".join(f"0x{p:04X}" if p else "0" for p in points) + "}"


print("/* Made by tools/make_case_table.py from Unicode's SpecialCasing, as Python knows it. Sorted by code point. */")
print("#ifndef NVLLM_TEXT_JINJA_CASE_TABLE_H\n#define NVLLM_TEXT_JINJA_CASE_TABLE_H\n")
print("#include <stdint.h>\n")
print("typedef struct {\n    uint32_t cp, upper[3], title[3]; /* 0: no more characters */\n} jinja_special_case;\n")
print("static const jinja_special_case special_cases[] = {")
for cp in range(0x110000):
    if 0xD800 <= cp < 0xE000:
        continue
    upper, title = chr(cp).upper(), chr(cp).title()
    if len(upper) > 1 or len(title) > 1:
        print(f"    {{0x{cp:04X}, {row(upper)}, {row(title)}}},")
print("};\n\n#endif")
