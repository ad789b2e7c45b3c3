#!/usr/bin/env python3
"""Writes tests/fixtures/jinja/cases.json: small templates with what the reference renders, or that it fails.

One template per line; "\\n" in it is a line end, "\\\\" a backslash. Usage (needs jinja2 3.1.6):
    tools/make_jinja_fixtures.py > tests/fixtures/jinja/cases.json
"""

import json

import jinja_reference

CONTEXT = {
    "c": 3,
    "messages": [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "bye"},
    ],
}

TEMPLATES = r'''
{% set x=1 %}{% for i in [1,2] %}{{ x }}{% set x = 5 %}{{ x }}{% endfor %}{{ x }}
{% for i in [1,2] %}{{ x is defined }}{% set x = 5 %}{% endfor %}{{ x }}
{% if c %}{% set x = 1 %}{% endif %}{{ x }}{{ c }}
{% macro m() %}{{ y }}{% endmacro %}{% set y = 2 %}{{ m() }}{% set y = 3 %}{{ m() }}
{% for i in [1,2,3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% else %}E{% endfor %}
{% for i in [1,2,3] %}{% continue %}{% else %}E{% endfor %}
{% for i in [1,2,3] %}{% break %}{% else %}E{% endfor %}
{% for i in [1,2,3] %}{{ loop.cycle('a','b') }}{{ loop.changed(i//2) }}{{ loop.depth }}{% endfor %}
{% for i in [[1,[2,3]],[4]] recursive %}{{ loop.depth0 }}{% if i is iterable %}({{ loop(i) }}){% else %}{{ i }}{% endif %}{% endfor %}
{% with a=1, b=a %}{{ a }}{{ b }}{% endwith %}{{ a }}
{% block foo %}x{{ v }}{% endblock %}
{% print 1, 2 %}
{% set a, (b, c) = 1, (2, 3) %}{{ a }}{{ b }}{{ c }}
{% set ns = namespace(a=1) %}{% for i in [1,2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns }}
{% set ns = namespace(_a=1) %}
{% set ns = namespace() %}{% set ns._a = 1 %}
{% set d = {} %}{% set d.x = 1 %}
{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a }}{{ ns['b'] }}
{% macro m(a, b=a, *args) %}{% endmacro %}
{% macro m(a, b=a) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1,2,3,x=4) }}{{ m(b=3) }}{{ m(1) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1,2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1,a=2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}
{% macro m(a) %}{{ a.b }}{% endmacro %}{{ m() }}
{% macro m(a) %}{{ caller(a) }}{% endmacro %}{% call(x) m(3) %}<{{ x }}>{% endcall %}
{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}
{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}
{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(5) }}
{% filter upper | replace('A','b') %}abc{% endfilter %}
{% set x | upper %}abc{% endset %}{{ x }}
{% raw %}{{ x }}{% endraw %}
  {%- raw -%}  {{ x }}  {%- endraw -%}  z
{% generation %}abc{% set x = 1 %}{% endgeneration %}{{ x }}
{% for i in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}
{% break %}
{% for x in [1,2] %}{% for y in [1,2] %}{% if y == 2 %}{% break %}{% endif %}{{ x }}{{ y }}{% endfor %}{% endfor %}
a\n  {% if true %}\n  b\n  {% endif %}\nc\n
a\n  {%+ if true %}\n  b\n  {% endif +%}\nc\n\n
a  {%- if true -%}  b  {%- endif -%}  c
{# comment #}\nx
  {# comment #}  x
  {# comment -#}  \n x
{{ 'a' }}\n{{ 'b' }}\n
  {{- 'a' -}}  \n  b
   {% set x = 1 %}   \n  {% set y = 2 %}\n{{ x }}
a {# c #} b {% if 1 %} c {% endif %} d
{{ 'a\\nb' }}{{ "\\x41\\u00e9\\t\\q\\101" }}
{{ "a" 'b' }}
{{ 1_000 }} {{ 0x1f }} {{ 0b11 }} {{ 0o17 }} {{ 1e3 }} {{ 1.5e-3 }} {{ 1_0.5 }}
{{ x.0.1 }}
{{ 1 if true }}{{ 1 if false }}|{{ (1 if false) is defined }}
{{ (1 if false).x }}
{{ a.b.c }}
{{ a.b }}{{ {}.b }}{{ {}.b.c }}
{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 1 == 1 != 2 }}
{{ not 1 == 2 }}{{ not true or true }}
{{ -2 ** 2 }}{{ 2 ** 3 ** 2 }}{{ -2 | abs }}{{ - 2 + 3 }}
{{ 1 + 2 ~ 3 + 4 }}{{ 2 * 3 ~ 4 }}
{{ [1,2,3][1:] + [4] }}{{ (1,2) + (3,) }}
{{ 'a' is string and 'b' is not none }}
{{ 'x' is foo }}
{% if false %}{{ 'x' is foo }}{{ 'x' | foo }}{% endif %}ok
{{ 1 if true else 'x' | foo }}
{{ 'x' | foo }}
{{ 'a' is in ['a'] }}{{ 'a' in ['a'] is true }}
{{ foo.bar if foo is defined else 'no' }}
{{ {'a': 1}.items() }}{{ {'a': 1}.keys() | list }}{{ {'a':1}.values() }}
{{ range(3) }}{{ range(1,10,3)|list }}{{ range(3)[1] }}{{ range(10)|length }}
{{ range(200000) }}
{{ range(1,2,0) }}
{{ dict(a=1, b=2) }}{{ dict([['a', 1]]) }}{{ dict({'x': 1}, y=2) }}
{{ cycler('a','b').next() }}{% set c = cycler(1,2) %}{{ c.next() }}{{ c.next() }}{{ c.next() }}
{% set j = joiner('|') %}{{ j() }}{{ j() }}{{ j() }}
{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %H:%M:%S %A %j') }}
{{ raise_exception('boom') }}
{{ raise_exception('boom ' ~ 1) }}
{{ none }}{{ true }}{{ 1.0 }}{{ [none, true, 1.0, 'a'] }}{{ {'a': none} }}
{{ none + 1 }}
{{ undefined_thing + 1 }}
{{ undefined_thing.x }}
{{ undefined_thing() }}
{{ undefined_thing[0] }}
{{ -undefined_thing }}
{{ undefined_thing == undefined_other }}{{ undefined_thing == none }}{{ undefined_thing | default('d') }}{{ undefined_thing | length }}
{{ undefined_thing < 1 }}
{{ 1 / 0 }}
{{ 1 // 0 }}
{{ 1 % 0 }}
{{ 7 / 2 }}{{ 8 / 2 }}{{ -7 // 2 }}{{ -7 % 3 }}{{ 7 % -3 }}{{ 7.5 % 2 }}{{ -7.5 // 2 }}
{{ 9223372036854775807 }}{{ -9223372036854775807 }}
{{ 'a' * 3 }}{{ 3 * 'a' }}{{ [1] * 2 }}{{ 'a' * -1 }}{{ 'a' * true }}
{{ 'a' < 'b' }}{{ [1,2] < [1,3] }}{{ 'a' < 1 }}
{{ [3,1,2] | sort }}{{ ['b','A'] | sort }}{{ [1,'a'] | sort }}
{{ {'b':1,'a':2} | dictsort }}{{ {'b':1,'a':2} | tojson(sort_keys=true) }}
{{ [1,[2,{'a':'é"\\n'}]] | tojson }}{{ 'é' | tojson(ensure_ascii=true) }}{{ {1:2, none:3, true:4, 1.5:5} | tojson }}
{{ [1,2] | tojson(indent=2) }}{{ {} | tojson(indent=2) }}{{ {'a':[]} | tojson(indent=0) }}{{ [1] | tojson(indent='--') }}
{{ [(1,2)] | tojson }}{{ 1e100 | tojson }}{{ (1e308*10) | tojson }}
{{ undefined_thing | tojson }}
{{ range(3) | tojson }}
{{ '{"a": [1, 2]}' | from_json }}
{{ 'x' | from_json }}
{{ (range(3) | map('string')) | list | length }}
{% set g = [1,2] | map('string') %}{{ g | list }}{{ g | list }}
{% for x in [1,2,3] | select('odd') %}{{ loop.last }}{{ loop.length }}{% endfor %}
{% for x in {'a':1,'b':2} %}{{ x }}{% endfor %}{% for k, v in {'a':1}.items() %}{{ k }}{{ v }}{% endfor %}
{% for x in 'héé' %}{{ x }},{% endfor %}
{% for x in 5 %}{% endfor %}
{% for x in none %}{% endfor %}
{% for x in undefined_thing %}{% else %}E{% endfor %}
{% for a, b in [[1,2],[3]] %}{{ a }}{% endfor %}
{% for a, b in [[1,2,3]] %}{{ a }}{% endfor %}
{{ loop }}
{% for loop in [1] %}{% endfor %}
{% for x in [1,2] %}{% macro m() %}{{ loop.index }}{{ x }}{% endmacro %}{{ m() }}{% endfor %}
{% if %}{% endif %}
{% endif %}
{% if 1 %}
{{ 1
{{ 'abc }}
{% foo %}
{{ }}
{{ 1 2 }}
{{ a.1b }}
{{ (1 }}
{{ [1 }}
{{ 1] }}
{# abc
{% raw %} abc
{% for x y %}{% endfor %}
{% set 1 = 2 %}
{% set x.y.z = 2 %}
{% set x[0] = 2 %}
{{ f(a=1, 2) }}
{{ f(*a, *b) }}
{{ dict(**{'a':1}) }}{{ dict(*[[['a',1]]]) }}
{{ dict(a=1, a=2) }}
{{ 'a' if 1 else }}
{{ 1 is not }}
{{ 'abc' | upper | lower | title }}
{{ 'abc'.upper().lower()[1:] }}
{{ ('<' | safe) + '<' }}{{ '<' | e }}{{ '<' | e | e }}{{ '<' | e | forceescape }}{{ ['<' | safe] }}
{{ 'a,b'.split(',') }}{{ 'a b'.split() | join('-') }}
{{ 'abc'.__class__ }}{{ ''.__class__.mro }}
{{ [].append(1) }}
{{ [].append is defined }}{{ {}.update }}x
{{ {}.pop('a') }}
{{ 'x'.foo }}{{ 'x'.foo.bar }}
{{ 5.foo }}
{{ 'ß'.upper() }}{{ 'ΑΣ'.lower() }}{{ 'ǆx'.title() }}{{ 'İ'.lower() | length }}
{{ "it's" }}{{ ["it's"] }}{{ ['"'] }}{{ ["'\\""] }}{{ ['\\u200b\\x00é\\U0001F600'] }}
{{ 'abc' is lower }}{{ 'ABC' is upper }}{{ '1' is lower }}
{{ 3 is divisibleby 3 }}{{ 3 is divisibleby(2) }}{{ 3 is odd }}{{ 'a' is eq 'a' }}{{ 1 is sameas true }}
{{ '%s %d %.2f %5s|%-5s|%05d %x %r %%' % ('a', 3, 1.005, 'b', 'c', 42, 255, 'q') }}
{{ '%(a)s' % {'a': 1} }}{{ '%s' % [1,2] }}{{ '%s' % none }}
{{ '%s' % (1,2) }}
{{ '%d' % 'a' }}
{{ '{} {1}'.format(1,2) }}
{{ '{} {a} {0.b}'.format({'b':1}, a=2) }}
{{ '{0} {a} {0.b} {0[b]:>4}|{1:,}'.format({'b':1}, 1234567, a=2) }}
{{ 0.1 + 0.2 }}{{ 1e16 }}{{ 1e15 }}{{ 123456789.123 }}{{ 1e-5 }}{{ 0.0001 }}{{ 1e22 }}{{ -0.0 }}
{{ 2.5 | round }}{{ 3.5 | round }}{{ 2.675 | round(2) }}{{ 5 | round }}{{ 15 | round(-1) }}{{ 25 | round(-1) }}{{ 2.5 | int }}
{{ '12' | int }}{{ 'x' | int(5) }}{{ '0x1f' | int(0, 16) }}{{ '1.9' | int }}{{ ' 7 ' | int }}{{ none | int }}{{ 'inf' | float }}
{{ x.y }}{{ x['y'] }}
{{ true + 1 }}{{ true == 1 }}{{ {1: 'a'}[true] }}{{ {1:'a', 1.0:'b'} }}
{{ {[]: 1} }}
{{ 1 in 'abc' }}
{{ 1 in 5 }}
{{ [] is sequence }}{{ {} is sequence }}{{ 'a' is sequence }}{{ undefined_thing is sequence }}{{ undefined_thing is iterable }}{{ 5 is iterable }}
{%- set x -%}  a  {%- endset -%}{{ x }}|
{% if true %}a{% elif false %}b{% else %}c{% endif %}{% if false %}a{% elif true %}b{% endif %}
{% for i in range(3) %}{% if loop.first %}F{% elif loop.last %}L{% else %}M{% endif %}{% endfor %}
{% for i in [1,2,3] %}{{ loop.previtem|default('-') }}{{ i }}{{ loop.nextitem|default('-') }} {% endfor %}
{% for i in [1,2,3,4] if i is even %}{{ loop.index }}/{{ loop.length }}={{ i }} {% endfor %}
{% for i in [1,2] if loop.index > 0 %}{{ i }}{% endfor %}
{{ [[1,2],[3,4]] | map('first') | list }}{{ [[1,2],[3,4]] | map(attribute=1) | list }}{{ [{'a':{'b':1}}] | map(attribute='a.b') | list }}
{{ [{'a':1},{'a':2},{}] | selectattr('a') | list }}{{ [{'a':1},{'a':2},{}] | selectattr('a','gt',1) | list }}
{{ [{'a':1},{'a':2},{}] | selectattr('a','defined') | map(attribute='a') | join(',') }}
{{ [1,2,3] | sum }}{{ [{'a':1}] | sum(attribute='a') }}{{ [] | sum }}{{ [] | first }}{{ [] | max }}
{{ 'hello world' | capitalize }}{{ "it's a-b" | title }}{{ "it's".title() }}
{{ 'a\\nb\\n\\nc' | indent }}{{ 'a\\nb' | indent(2, true) }}
{{ 'abc' | list }}{{ 'abc' | reverse }}{{ [1,2] | reverse | list }}{{ {'a':1} | list }}
{{ 'a' ~ none ~ 1.0 ~ [1] ~ undefined_thing }}
{{ 'foo bar baz' | truncate(9) }}{{ 'foo bar baz' | truncate(9, true) }}{{ 'foo bar baz' | wordcount }}
{{ 'x' | center(5) }}|{{ 'a b&c/d' | urlencode }}{{ {'a b': 1} | urlencode }}
{{ [1,2,3,4,5] | batch(2) | list }}{{ [1,2,3,4,5] | slice(2) | list }}
{{ messages[::-1][0] }}{{ messages[-1].role }}{{ messages | length }}{{ messages[0]['content'][:2] }}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first }}
{{ messages | groupby('role') }}
{{ (messages | last).content is string }}
{{ '{:.3}|{:.3}|{:.3}|{:.4}'.format(3.0, 123.0, 0.00001234, 123.0) }}{{ '%.3d|%05d|%+.1f' % (7, -42, 2.25) }}
{{ '{:,}|{:_x}|{:>8,.2f}|{:08.3f}|{:.1%}'.format(1234567, 1234567, 9876.543, -1.5, 0.256) }}
{{ '{:,x}'.format(7) }}
{{ '{:.3}'.format(7) }}
{% macro m(p, q=q) %}{{ q is defined }}{% endmacro %}{% set q = 1 %}{{ m(0) }}
{{ nothing | truncate(5) is defined }}{{ range(5)[::2] }}{{ range(9).index(3) }}
'''


def source(line):
    return line.replace("\\\\", "\1").replace("\\n", "\n").replace("\1", "\\")


def main():
    env = jinja_reference.environment()
    cases = []
    for line in TEMPLATES.strip("\n").split("\n"):
        template = source(line)
        result = jinja_reference.render(env, template, json.loads(json.dumps(CONTEXT)))
        cases.append({"template": template, **result})
    print(json.dumps({"context": CONTEXT, "cases": cases}, indent=1))


if __name__ == "__main__":
    main()
