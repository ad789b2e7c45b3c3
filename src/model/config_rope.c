/* RoPE scaling: reading it, and the frequencies it gives. Sources: transformers' modeling_rope_utils.py (linear,
 * _compute_llama3_parameters, _compute_yarn_parameters; YaRN is arXiv:2309.00071). The arithmetic follows the
 * reference step by step in float32, because a difference in the last bit of a frequency grows with the position. */
#include "model/config_rope.h"

#include <math.h>
#include <string.h>

#define PI         3.14159265358979323846
#define MAX_FACTOR 1e6
#define MAX_THETA  1e15

double config_yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

/* original_max_position_embeddings: the top level's wins, then the scaling's own, then the whole context. */
static void read_original_context(model_config *out, const json_reader *top, json_reader *r)
{
    out->rope.original_context = out->max_context;
    json_int(&out->rope.original_context, r, "original_max_position_embeddings", 1, INT32_MAX);
    json_reader outer = *top;
    outer.status = r->status;
    json_int(&out->rope.original_context, &outer, "original_max_position_embeddings", 1, INT32_MAX);
    r->status = outer.status;
}

static void read_llama3(model_config *out, json_reader *r)
{
    rope_config *rope = &out->rope;
    rope->scaling = ROPE_LLAMA3;
    json_need_float(&rope->factor, r, "factor", 1e-6, MAX_FACTOR);
    json_need_float(&rope->low_freq_factor, r, "low_freq_factor", 1e-6, MAX_FACTOR);
    json_need_float(&rope->high_freq_factor, r, "high_freq_factor", 1e-6, MAX_FACTOR);
    if (!(rope->high_freq_factor > rope->low_freq_factor))
        json_fail(r, NVLLM_ERR_FORMAT, "high_freq_factor", "%g is not above low_freq_factor %g",
                  (double)rope->high_freq_factor, (double)rope->low_freq_factor);
}

/* Zero means the default, as in the reference. */
static float read_beta(json_reader *r, const char *key, float standard)
{
    float beta = 0;
    json_float(&beta, r, key, 0, MAX_FACTOR);
    return beta != 0 ? beta : standard;
}

static void read_yarn(model_config *out, json_reader *r)
{
    rope_config *rope = &out->rope;
    float mscale = 0, mscale_all_dim = 0;
    rope->scaling = ROPE_YARN;
    rope->factor = (float)((double)out->max_context / rope->original_context);
    if (json_object_get(r->object, "factor"))
        json_float(&rope->factor, r, "factor", 1e-6, MAX_FACTOR);
    else
        json_need_float(&rope->factor, r, "factor", 1e-6, MAX_FACTOR);
    rope->beta_fast = read_beta(r, "beta_fast", 32);
    rope->beta_slow = read_beta(r, "beta_slow", 1);
    json_bool(&rope->truncate, r, "truncate");
    json_float(&mscale, r, "mscale", 0, 1000);
    json_float(&mscale_all_dim, r, "mscale_all_dim", 0, 1000);
    double attention = config_yarn_mscale((double)rope->factor, 1);
    if (mscale != 0 && mscale_all_dim != 0)
        attention = config_yarn_mscale((double)rope->factor, (double)mscale) /
                    config_yarn_mscale((double)rope->factor, (double)mscale_all_dim);
    rope->attention_factor = (float)attention;
    json_float(&rope->attention_factor, r, "attention_factor", 0, MAX_FACTOR);
}

static void read_scaling(model_config *out, const json_reader *top, json_reader *r)
{
    const char *key = json_field(r, "rope_type") ? "rope_type" : "type", *type = json_text(r, key);
    json_float(&out->rope.theta, r, "rope_theta", 1.001, MAX_THETA);
    if (json_is_object(json_field(r, "full_attention")) || json_is_object(json_field(r, "sliding_attention")))
        json_fail(r, NVLLM_ERR_UNSUPPORTED, "full_attention", "(RoPE per layer type) is not supported");
    if (r->status || !type || !strcmp(type, "default")) return;
    read_original_context(out, top, r);
    if (!strcmp(type, "linear")) {
        out->rope.scaling = ROPE_LINEAR;
        json_need_float(&out->rope.factor, r, "factor", 1e-6, MAX_FACTOR);
    } else if (!strcmp(type, "llama3")) {
        read_llama3(out, r);
    } else if (!strcmp(type, "yarn")) {
        read_yarn(out, r);
    } else {
        json_fail(r, NVLLM_ERR_UNSUPPORTED, key, "%.60s is not supported; default, linear, llama3, yarn are",
                  type);
    }
}

static void refuse_partial(json_reader *r)
{
    float part = 1;
    json_float(&part, r, "partial_rotary_factor", 0, 1);
    if (part != 1)
        json_fail(r, NVLLM_ERR_UNSUPPORTED, "partial_rotary_factor", "%g is not supported; 1 is",
                  (double)part);
}

void config_read_rope(model_config *out, json_reader *top)
{
    out->rope = (rope_config){.scaling = ROPE_PLAIN,
                              .pairing = out->family->pairing,
                              .theta = out->family->default_theta,
                              .factor = 1,
                              .attention_factor = 1,
                              .truncate = true};
    json_float(&out->rope.theta, top, "rope_theta", 1.001, MAX_THETA);
    refuse_partial(top);
    const char *key = json_object_size(json_field(top, "rope_scaling")) ? "rope_scaling" : "rope_parameters";
    const json_t *scaling = json_field(top, key), *other = json_field(top, "rope_scaling");
    if ((scaling && !json_is_object(scaling)) || (other && !json_is_object(other)))
        json_fail(top, NVLLM_ERR_FORMAT, other ? "rope_scaling" : key, "is not an object or null");
    if (!scaling || top->status) return;
    json_reader inner = *top;
    inner.object = scaling;
    inner.prefix = !strcmp(key, "rope_scaling") ? "rope_scaling." : "rope_parameters.";
    refuse_partial(&inner);
    if (!inner.status) read_scaling(out, top, &inner);
    top->status = inner.status;
}

/* theta^(2i/C), each step rounded to float32; the power itself correctly rounded. */
static float power(const model_config *c, int32_t i)
{
    float exponent = (float)(2 * i) / (float)c->C;
    return (float)pow((double)c->rope.theta, (double)exponent);
}

/* Long wavelengths are divided by the factor, short ones are left alone, those between are blended. */
static float llama3_frequency(const rope_config *r, float plain)
{
    const double context = r->original_context, low = (double)r->low_freq_factor,
                 high = (double)r->high_freq_factor;
    float wavelength = 1.0f / plain * (float)(2 * PI);
    if (wavelength > (float)(context / low)) return plain / r->factor;
    if (wavelength < (float)(context / high)) return plain;
    float smooth = (1.0f / wavelength * (float)context - (float)low) / (float)(high - low);
    return (1.0f - smooth) * plain / r->factor + smooth * plain;
}

/* The dimension whose wavelength turns `rotations` times within the original context. */
static double yarn_dimension(const model_config *c, double rotations)
{
    return c->C * log(c->rope.original_context / (rotations * 2 * PI)) / (2 * log((double)c->rope.theta));
}

/* Between `low` and `high` the extrapolated frequency fades into the interpolated one. */
static void yarn_range(double *low, double *high, const model_config *c)
{
    *low = yarn_dimension(c, (double)c->rope.beta_fast);
    *high = yarn_dimension(c, (double)c->rope.beta_slow);
    if (c->rope.truncate) {
        *low = floor(*low);
        *high = ceil(*high);
    }
    *low = fmax(*low, 0);
    *high = fmin(*high, c->C - 1);
    if (*low == *high) *high += 0.001;
}

static float yarn_frequency(const model_config *c, float power_i, int32_t i, double low, double high)
{
    float ramp = ((float)i - (float)low) / (float)(high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    float keep = 1.0f - ramp;
    return 1.0f / (c->rope.factor * power_i) * (1.0f - keep) + 1.0f / power_i * keep;
}

void config_rope_frequencies(const model_config *c, float *inv_freq)
{
    double low = 0, high = 1;
    if (c->rope.scaling == ROPE_YARN) yarn_range(&low, &high, c);
    for (int32_t i = 0; i < c->C / 2; i++) {
        float p = power(c, i), plain = 1.0f / p;
        switch (c->rope.scaling) {
        case ROPE_PLAIN: inv_freq[i] = plain; break;
        case ROPE_LINEAR: inv_freq[i] = plain / c->rope.factor; break;
        case ROPE_LLAMA3: inv_freq[i] = llama3_frequency(&c->rope, plain); break;
        case ROPE_YARN: inv_freq[i] = yarn_frequency(c, p, i, low, high); break;
        }
        if (c->rope.divisors) inv_freq[i] /= c->rope.divisors[i];
    }
}
