// @NAME@: softmax(scale Q K^T + bias) V, as a plugin written in C++.
//
// Written by tools/new-plugin.  Inside, C++ as you like it; at the boundary nothing may be thrown: guarded() turns
// exceptions into statuses, and every function that the host sees is noexcept.  Put your kernel in the place of
// attend_head(), which has one head's keys and values packed before it, or of run().
//
// Build: make          Check: make check          Time: attnplug bench --op @ID@
#include "attn_abi.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <exception>
#include <initializer_list>
#include <limits>
#include <new>

struct attn_op {
    const attn_host *host;
};

namespace
{

__attribute__((format(printf, 3, 4))) attn_status fail(attn_error *err, attn_status status, const char *format,
                                                       ...) noexcept
{
    if (err && err->text && err->capacity) {
        va_list args;
        va_start(args, format);
        std::vsnprintf(err->text, err->capacity, format, args);
        va_end(args);
    }
    return status;
}

// For create and prepare, where the standard library may throw.  supports() returns statuses: hosts ask it often, and
// an exception costs microseconds.
template <typename Body> attn_status guarded(attn_error *err, Body body) noexcept
{
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return fail(err, ATTN_NOMEM, "no memory for @NAME@");
    } catch (const std::exception &e) {
        return fail(err, ATTN_INTERNAL, "%s", e.what());
    } catch (...) {
        return fail(err, ATTN_INTERNAL, "an exception of no known type");
    }
}

bool is_float32(const attn_tensor &t) noexcept
{
    return t.code == ATTN_CODE_FLOAT && t.bits == 32 && t.lanes == 1;
}

bool is_float(const attn_tensor &t) noexcept
{
    return t.lanes == 1 && ((t.code == ATTN_CODE_FLOAT && (t.bits == 16 || t.bits == 32 || t.bits == 64)) ||
                            (t.code == ATTN_CODE_BFLOAT && t.bits == 16));
}

bool is_bytes(const attn_tensor &t) noexcept
{
    return t.code == ATTN_CODE_UINT && t.bits == 8 && t.lanes == 1;
}

attn_status want(const attn_tensor &t, const char *name, uint32_t rank, const int64_t *shape, bool output,
                 attn_error *err) noexcept
{
    if (t.rank != rank)
        return fail(err, ATTN_INVALID, "%s: rank %u, expected %u", name, t.rank, rank);
    if (t.device_type != ATTN_DEVICE_CPU)
        return fail(err, ATTN_INVALID, "%s: not on the CPU", name);
    for (uint32_t a = 0; a < rank; a++) {
        if (t.shape[a] < 0 || t.shape[a] != shape[a])
            return fail(err, ATTN_INVALID, "%s: shape[%u] is %lld, expected %lld", name, a,
                        static_cast<long long>(t.shape[a]), static_cast<long long>(shape[a]));
        if (output && t.stride[a] == 0 && t.shape[a] > 1)
            return fail(err, ATTN_INVALID, "%s: a stride of 0 in an output", name);
    }
    return ATTN_OK;
}

attn_status check_shapes(const attn_op_call &c, attn_error *err) noexcept
{
    const int64_t B = c.q.shape[0], H = c.q.shape[1], Nq = c.q.shape[2], D = c.q.shape[3];
    const int64_t Hk = c.k.shape[1], Nk = c.k.shape[2], Dv = c.v.shape[3];
    const int64_t query[] = {B, H, Nq, D}, key[] = {B, Hk, Nk, D}, value[] = {B, Hk, Nk, Dv};
    const int64_t out[] = {B, H, Nq, Dv}, map[] = {B, H, Nq, Nk}, mass[] = {B, Nk};
    const struct {
        const attn_tensor &tensor;
        const char *name;
        uint32_t rank;
        const int64_t *shape;
        bool optional, output;
    } wanted[] = {{c.q, "q", 4, query, false, false},      {c.k, "k", 4, key, false, false},
                  {c.v, "v", 4, value, false, false},      {c.out, "out", 4, out, false, true},
                  {c.bias, "bias", 4, map, true, false},   {c.mask, "mask", 4, map, true, false},
                  {c.lse, "lse", 3, query, true, true},    {c.key_mass, "key_mass", 2, mass, true, true},
                  {c.probs, "probs", 4, map, true, true}};
    for (const auto &w : wanted) {
        if (w.optional && !w.tensor.rank)
            continue;
        const attn_status s = want(w.tensor, w.name, w.rank, w.shape, w.output, err);
        if (s != ATTN_OK)
            return s;
    }
    if (Hk < 1 ? H > 0 : H % Hk != 0)
        return fail(err, ATTN_INVALID, "k: %lld heads, expected a divisor of q's %lld", static_cast<long long>(Hk),
                    static_cast<long long>(H));
    return ATTN_OK;
}

// Types that are wrong for any op.
attn_status check_types(const attn_op_call &c, attn_error *err) noexcept
{
    for (const attn_tensor *t : {&c.q, &c.bias})
        if (t->rank && !is_float(*t))
            return fail(err, ATTN_INVALID, "q, bias: type code %u, %u bits, expected a float", t->code, t->bits);
    for (const attn_tensor *t : {&c.k, &c.v, &c.out})
        if (t->code != c.q.code || t->bits != c.q.bits || t->lanes != c.q.lanes)
            return fail(err, ATTN_INVALID, "k, v, out: type code %u, %u bits, expected q's %u and %u", t->code, t->bits,
                        c.q.code, c.q.bits);
    if (c.mask.rank && !is_bytes(c.mask))
        return fail(err, ATTN_INVALID, "mask: type code %u, %u bits, expected unsigned bytes", c.mask.code, c.mask.bits);
    for (const attn_tensor *t : {&c.lse, &c.key_mass, &c.probs})
        if (t->rank && !is_float32(*t))
            return fail(err, ATTN_INVALID, "lse, key_mass, probs: expected fp32");
    return ATTN_OK;
}

attn_status check_call(const attn_op_call &c, attn_error *err) noexcept
{
    if (c.size < sizeof c)
        return fail(err, ATTN_INVALID, "call: size %u, expected %zu", c.size, sizeof c);
    if (c.flags & ~(ATTN_CALL_BAND | ATTN_CALL_F32_SCORES | ATTN_CALL_F32_SOFTMAX))
        return fail(err, ATTN_UNSUPPORTED, "call: unknown flags");
    for (const attn_ext *e = c.ext; e; e = e->next)
        if (e->flags & ATTN_EXT_REQUIRED)
            return fail(err, ATTN_UNSUPPORTED, "extension %s is not known", e->id);
    attn_status s = check_shapes(c, err);
    if (s == ATTN_OK)
        s = check_types(c, err);
    if (s != ATTN_OK)
        return s;
    for (const attn_tensor *t : {&c.q, &c.bias})
        if (t->rank && !is_float32(*t))
            return fail(err, ATTN_UNSUPPORTED, "@NAME@ computes in fp32 only");
    return ATTN_OK;
}

template <typename T> T &at(const attn_tensor &t, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return static_cast<T *>(t.data)[a * t.stride[0] + b * t.stride[1] + c * t.stride[2] + d * t.stride[3]];
}

constexpr double dark = -std::numeric_limits<double>::infinity();

// What one slot of parallel_for works in: keys and values of one head, gathered so that the kernel sees plain arrays,
// and for each key a probability and a column sum.  It lies in the call's scratch.
struct memory {
    double *p, *column; // [Nk]
    float *q, *k, *v;   // [D], [Nk, D], [Nk, Dv]

    static uint64_t bytes(const attn_op_call &c)
    {
        const uint64_t D = uint64_t(c.q.shape[3]), Dv = uint64_t(c.v.shape[3]), Nk = uint64_t(c.k.shape[2]);
        const uint64_t all = 2 * Nk * sizeof(double) + (D + Nk * (D + Dv)) * sizeof(float);
        return (all + 63) / 64 * 64; // slots share no cache line
    }

    memory(const attn_op_call &c, uint32_t slot)
    {
        const int64_t Nk = c.k.shape[2], D = c.q.shape[3];
        p = reinterpret_cast<double *>(static_cast<char *>(c.scratch) + slot * bytes(c));
        column = p + Nk;
        q = reinterpret_cast<float *>(column + Nk);
        k = q + D;
        v = k + Nk * D;
    }
};

// Rows [begin, end) of a head, packed.
void gather(const attn_tensor &t, int64_t b, int64_t h, int64_t begin, int64_t end, float *to)
{
    for (int64_t j = begin; j < end; j++)
        for (int64_t d = 0; d < t.shape[3]; d++)
            *to++ = at<float>(t, b, h, j, d);
}

// Whether query i may see key j.
bool sees(const attn_op_call &c, int64_t b, int64_t h, int64_t i, int64_t j)
{
    if ((c.flags & ATTN_CALL_BAND) && (j - i < c.band_lo || j - i > c.band_hi))
        return false;
    return !c.mask.rank || at<unsigned char>(c.mask, b, h, i, j) != 0;
}

// One row; m.p ends as the row of the softmax.
void attend_row(const attn_op_call &c, double scale, int64_t b, int64_t h, int64_t i, const memory &m)
{
    const int64_t Nk = c.k.shape[2], D = c.q.shape[3], Dv = c.v.shape[3];
    double top = dark, sum = 0;
    gather(c.q, b, h, i, i + 1, m.q);
    for (int64_t j = 0; j < Nk; j++) {
        double s = 0;
        for (int64_t d = 0; d < D; d++)
            s += double(m.q[d]) * double(m.k[j * D + d]);
        s = scale * s + (c.bias.rank ? double(at<float>(c.bias, b, h, i, j)) : 0);
        m.p[j] = sees(c, b, h, i, j) ? s : dark;
        top = m.p[j] > top ? m.p[j] : top;
    }
    for (int64_t j = 0; j < Nk; j++)
        sum += m.p[j] = m.p[j] == dark ? 0 : std::exp(m.p[j] - top);
    for (int64_t j = 0; sum > 0 && j < Nk; j++) // a row that sees nothing stays 0
        m.p[j] /= sum;
    for (int64_t d = 0; d < Dv; d++) {
        double o = 0;
        for (int64_t j = 0; j < Nk; j++)
            o += m.p[j] * double(m.v[j * Dv + d]);
        at<float>(c.out, b, h, i, d) = float(o);
    }
    for (int64_t j = 0; c.probs.rank && j < Nk; j++)
        at<float>(c.probs, b, h, i, j) = float(m.p[j]);
    if (c.lse.rank) {
        attn_tensor lse = c.lse;
        lse.stride[3] = 0;
        at<float>(lse, b, h, i, 0) = sum == 0 ? float(dark) : float(top + std::log(sum));
    }
}

// One head of one sample: what a kernel of yours takes the place of.  Query head h reads key head hk; k and v lie
// packed in m; Nk may be 0, and then out is 0 and lse minus infinity.
void attend_head(const attn_op_call &c, double scale, int64_t b, int64_t h, const memory &m)
{
    const int64_t Nk = c.k.shape[2], hk = h / (c.q.shape[1] / c.k.shape[1]);
    gather(c.k, b, hk, 0, Nk, m.k);
    gather(c.v, b, hk, 0, Nk, m.v);
    for (int64_t i = 0; i < c.q.shape[2]; i++) {
        attend_row(c, scale, b, h, i, m);
        for (int64_t j = 0; c.key_mass.rank && j < Nk; j++)
            m.column[j] += m.p[j];
    }
}

struct job {
    const attn_op_call *call;
    double scale;
};

// Units of work are heads of samples.
void heads_body(void *arg, int64_t begin, int64_t end, uint32_t thread) noexcept
{
    const job &j = *static_cast<const job *>(arg);
    const memory m(*j.call, thread);
    const int64_t H = j.call->q.shape[1];
    for (int64_t n = begin; n < end; n++)
        attend_head(*j.call, j.scale, n / H, n % H, m);
}

// key_mass is a sum over all heads: with it the units are samples, so that the order of the sums never changes.
void samples_body(void *arg, int64_t begin, int64_t end, uint32_t thread) noexcept
{
    const job &work = *static_cast<const job *>(arg);
    const attn_op_call &c = *work.call;
    const memory m(c, thread);
    const int64_t Nk = c.k.shape[2], H = c.q.shape[1];
    for (int64_t b = begin; b < end; b++) {
        for (int64_t j = 0; j < Nk; j++)
            m.column[j] = 0;
        for (int64_t h = 0; h < H; h++)
            attend_head(c, work.scale, b, h, m);
        for (int64_t j = 0; j < Nk; j++)
            static_cast<float *>(c.key_mass.data)[b * c.key_mass.stride[0] + j * c.key_mass.stride[1]] =
                H ? float(m.column[j] / double(H)) : 0;
    }
}

// -- what the host sees ---------------------------------------------------------------------------------------

attn_status create(const attn_host *host, const attn_device *device, const attn_param *params, uint32_t n_params,
                   attn_op **out, attn_error *err) noexcept
{
    return guarded(err, [&] {
        if (device->type != ATTN_DEVICE_CPU)
            return fail(err, ATTN_UNSUPPORTED, "@NAME@ runs on the CPU");
        if (n_params)
            return fail(err, ATTN_INVALID, "parameter '%s' is not known", params[0].name);
        *out = new attn_op{host};
        return ATTN_OK;
    });
}

void destroy(attn_op *op) noexcept
{
    delete op;
}

attn_status supports(attn_op *, const attn_op_call *c, attn_error *err) noexcept
{
    return check_call(*c, err);
}

attn_status prepare(attn_op *op, const attn_op_call *c, attn_op_plan **plan, uint64_t *scratch,
                    attn_error *err) noexcept
{
    return guarded(err, [&] {
        const attn_status s = check_call(*c, err);
        const uint64_t slots = op->host->parallel_for ? op->host->max_threads : 1;
        if (s == ATTN_OK) {
            *scratch = slots * memory::bytes(*c);
            *plan = reinterpret_cast<attn_op_plan *>(op);
        }
        return s;
    });
}

attn_status run(attn_op_plan *plan, const attn_op_call *c, attn_error *) noexcept
{
    const attn_host *host = reinterpret_cast<attn_op *>(plan)->host;
    job j = {c, c->scale != 0 ? double(c->scale) : 1 / std::sqrt(double(c->q.shape[3]))};
    const int64_t B = c->q.shape[0], units = c->key_mass.rank ? B : B * c->q.shape[1];
    const auto body = c->key_mass.rank ? samples_body : heads_body;
    if (host->parallel_for)
        host->parallel_for(host->ctx, units, 1, body, &j);
    else
        body(&j, 0, units, 0);
    return ATTN_OK;
}

void release(attn_op_plan *) noexcept {}

} // namespace

const attn_op_api attn_op_v1 = {
    {
        ATTN_MAGIC,
        ATTN_ABI,
        sizeof(attn_op_api),
        0,                                // flags: ATTN_HEAD_APPROXIMATE, ATTN_HEAD_CAPTURABLE
        UINT64_C(1) << ATTN_DEVICE_CPU,   // devices, a bit each
        ATTN_DTYPE_F32,                   // element types, a bit each
        "@ID@",                           // id
        "0.1.0",                          // version
        "@VENDOR@",                       // vendor
        "plain loops in C++",             // summary
    },
    create,
    destroy,
    supports,
    prepare,
    run,
    release,
    nullptr, // query
};
