/* The table of named pre-tokenizers; see named_pre.h.
 *
 * A row's regular expressions are put together from a few parts, since most models vary one scheme: contractions,
 * words with one character in front, numbers, punctuation, line ends, white space. */
#include "text/tokenizer/named_pre.h"

#include <string.h>

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES      "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORD        "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define PUNCTUATION " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
/* GPT-4's scheme, in front of its numbers and behind them. */
#define GPT4_HEAD CONTRACTION "|" WORD "|"
#define GPT4_TAIL "|" PUNCTUATION "|" SPACES

/* Words that end where lower case gives way to upper case. */
#define UPPER      "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER      "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define LEAD       "[^\\r\\n\\p{L}\\p{N}]?"
#define CASED      LEAD UPPER "*" LOWER "+|" LEAD UPPER "+" LOWER "*|"
#define CASED_SAID LEAD UPPER "*" LOWER "+" CONTRACTION "?|" LEAD UPPER "+" LOWER "*" CONTRACTION "?|"
#define CASED_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES

#define CJK_AND_KANA "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+"
#define CJK_AND_MORE "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"
/* DeepSeek-V3's words: letters behind one ASCII punctuation mark, or letters and marks behind anything else. */
#define MARKED_WORD                                                                                          \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
#define NOT_SENTENCE_MARKS " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"

/* Cased letters, as a list from before some of them were assigned. */
#define CASED_LETTERS                                                                                        \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"          \
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}"   \
    "\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}"          \
    "\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"        \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}"        \
    "\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}"                   \
    "\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}"                  \
    "\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}"        \
    "\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}"          \
    "\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}"                   \
    "\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}"                   \
    "\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"         \
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}"        \
    "\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}"                       \
    "\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}"                   \
    "\\x{1E900}-\\x{1E943}"

static const tok_named_pre known[] = {
    {.names = " default ", .regex = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names =
         " gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert "
         "jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe ",
     .regex = {GPT2}},
    {.names = " starcoder refact command-r smollm codeshell exaone minerva-7b mellum2 ",
     .regex = {"\\p{N}", GPT2}},
    {.names = " falcon ", .regex = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {.names = " llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano ",
     .regex = {GPT4_HEAD "\\p{N}{1,3}" GPT4_TAIL},
     .ignore_merges = true,
     .add_bos = true},
    {.names = " smaug-bpe dbrx chatglm-bpe ", .regex = {GPT4_HEAD "\\p{N}{1,3}" GPT4_TAIL}},
    {.names = " glm4 glm5 ", .regex = {GPT4_HEAD "\\p{N}{1,3}" GPT4_TAIL}, .ignore_merges = true},
    {.names = " minicpm5 ", .regex = {"\\p{N}{1,3}", GPT4_HEAD "\\p{N}+" GPT4_TAIL}, .ignore_merges = true},
    {.names = " qwen2 deepseek-r1-qwen f2llmv2 ", .regex = {GPT4_HEAD "\\p{N}" GPT4_TAIL}, .nfc = true},
    {.names = " stablelm2 hunyuan solar-open grok-2 kormo megrez bailingmoe bailingmoe2 llada-moe ",
     .regex = {GPT4_HEAD "\\p{N}" GPT4_TAIL}},
    {.names = " qwen35 ",
     .regex = {CONTRACTION
               "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES},
     .nfc = true},
    {.names = " ufakzeka ", .regex = {WORD "|\\p{N}|" PUNCTUATION "|" SPACES}},
    {.names = " laguna ", .regex = {"[^\\n]+|[\\n]+", GPT4_HEAD "\\p{N}" GPT4_TAIL}},
    {.names = " seed-coder ", .regex = {CONTRACTION "|" WORD "|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES}},
    {.names = " exaone-moe ",
     .regex = {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}|"
                           " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {.names = " jais-2 ",
     .regex = {CONTRACTION "|" WORD "|\\p{N}{1,3}|" PUNCTUATION "|\\s*[\\r\\n]+|\\s{512}(?!\\S)|"
                           "\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|"
                           "\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"}},
    {.names = " tekken ", .regex = {CASED "\\p{N}" CASED_TAIL}, .ignore_merges = true, .add_bos = true},
    {.names = " gpt-4o llama4 kanana2 talkie minimax-m2 ", .regex = {CASED_SAID "\\p{N}{1,3}" CASED_TAIL}},
    {.names = " granite-embed-multi-97m ",
     .regex = {CASED_SAID "\\p{N}{1,3}" CASED_TAIL},
     .ignore_merges = true},
    {.names = " youtu ",
     .regex = {"[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}"
               "\\x{2019}\\x{2014}\\x{FF1A}\\x{FF1B}\\x{FF0C}\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|"
               "[\\x{3105}-\\x{312F}]+|" CJK_AND_KANA,
               CASED_SAID "\\p{N}" CASED_TAIL},
     .ignore_merges = true},
    {.names = " deepseek-llm ",
     .regex = {"[\\r\\n]", "\\s?[" CASED_LETTERS "]+",
               "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+",
               "\\s+$", CJK_AND_MORE, "\\p{N}+"}},
    {.names = " deepseek-coder ",
     .regex = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK_AND_MORE, "\\p{N}"}},
    {.names = " deepseek-v3 hunyuan-dense joyai-llm hy_v4 ",
     .regex = {"\\p{N}{1,3}", CJK_AND_KANA, MARKED_WORD "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES}},
    {.names = " spark2_5 ",
     .regex = {"\\p{N}{1,3}", CJK_AND_KANA, MARKED_WORD "| ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+",
               "\\p{N}"}},
    {.names = " poro-chat bloom gpt3-finnish ", .regex = {NOT_SENTENCE_MARKS}},
    {.names = " viking ", .regex = {NOT_SENTENCE_MARKS, "\\p{N}"}},
    {.names = " superbpe ", .regex = {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}},
    {.names = " chameleon ",
     .regex = {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}",
               "[\\p{P}!-/:-@\\[-`{-~]", GPT2},
     .add_bos = true},
};

bool tok_is_listed(const char *list, const char *word, size_t len)
{
    if (len == 0 || memchr(word, ' ', len)) return false;
    for (const char *at = list + 1, *end; (end = strchr(at, ' ')); at = end + 1)
        if ((size_t)(end - at) == len && memcmp(at, word, len) == 0) return true;
    return false;
}

const tok_named_pre *tok_named_pre_find(const char *name)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (tok_is_listed(known[i].names, name, strlen(name))) return &known[i];
    return NULL;
}
