// @NAME@: softmax(scale Q K^T + bias) V, as a plugin written in C++.
//
// Written by tools/new-plugin.  Inside, C++ as you like it; at the boundary nothing may be thrown: guarded() turns
// exceptions into statuses, and every function that the host sees is noexcept.  Put your kernel in attend_row().
//
// Build: make          Check: make check          Time: attnplug bench --op @ID@
#include "attn_abi.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>

struct attn_op {
    const attn_host *host;
};

namespace
{

// A refusal on its way to the boundary.
struct refusal : std::runtime_error {
    attn_status status;
    refusal(attn_status s, const std::string &text) : std::runtime_error(text), status(s) {}
};

attn_status fail(attn_error *err, attn_status status, const char *text) noexcept
{
    if (err && err->text && err->capacity)
        std::snprintf(err->text, err->capacity, "%s", text);
    return status;
}

template <typename Body> attn_status guarded(attn_error *err, Body body) noexcept
{
    try {
        body();
        return ATTN_OK;
    } catch (const refusal &r) {
        return fail(err, r.status, r.what());
    } catch (const std::bad_alloc &) {
        return fail(err, ATTN_NOMEM, "no memory for @NAME@");
    } catch (const std::exception &e) {
        return fail(err, ATTN_INTERNAL, e.what());
    } catch (...) {
        return fail(err, ATTN_INTERNAL, "an exception of no known type");
    }
}

bool is_float32(const attn_tensor &t)
{
    return t.code == ATTN_CODE_FLOAT && t.bits == 32 && t.lanes == 1;
}

void want(const attn_tensor &t, const char *name, uint32_t rank, const int64_t *shape, bool output)
{
    const std::string who(name);
    if (t.rank != rank)
        throw refusal(ATTN_INVALID, who + ": rank " + std::to_string(t.rank) + ", expected " + std::to_string(rank));
    if (t.device_type != ATTN_DEVICE_CPU)
        throw refusal(ATTN_INVALID, who + ": not on the CPU");
    for (uint32_t a = 0; a < rank; a++) {
        if (t.shape[a] < 0 || t.shape[a] != shape[a])
            throw refusal(ATTN_INVALID, who + ": shape[" + std::to_string(a) + "] is " + std::to_string(t.shape[a]) +
                                            ", expected " + std::to_string(shape[a]));
        if (output && t.stride[a] == 0 && t.shape[a] > 1)
            throw refusal(ATTN_INVALID, who + ": a stride of 0 in an output");
    }
}

void check_shapes(const attn_op_call &c)
{
    const int64_t B = c.q.shape[0], H = c.q.shape[1], Nq = c.q.shape[2], D = c.q.shape[3];
    const int64_t Hk = c.k.shape[1], Nk = c.k.shape[2], Dv = c.v.shape[3];
    const int64_t query[] = {B, H, Nq, D}, key[] = {B, Hk, Nk, D}, value[] = {B, Hk, Nk, Dv};
    const int64_t out[] = {B, H, Nq, Dv}, map[] = {B, H, Nq, Nk}, mass[] = {B, Nk};
    want(c.q, "q", 4, query, false);
    want(c.k, "k", 4, key, false);
    want(c.v, "v", 4, value, false);
    want(c.out, "out", 4, out, true);
    if (c.bias.rank)
        want(c.bias, "bias", 4, map, false);
    if (c.mask.rank)
        want(c.mask, "mask", 4, map, false);
    if (c.lse.rank)
        want(c.lse, "lse", 3, query, true);
    if (c.key_mass.rank)
        want(c.key_mass, "key_mass", 2, mass, true);
    if (c.probs.rank)
        want(c.probs, "probs", 4, map, true);
    if (Hk < 1 ? H > 0 : H % Hk != 0)
        throw refusal(ATTN_INVALID, "k: " + std::to_string(Hk) + " heads, expected a divisor of " + std::to_string(H));
}

void check_call(const attn_op_call &c)
{
    if (c.size < sizeof c)
        throw refusal(ATTN_INVALID, "call: size " + std::to_string(c.size));
    if (c.flags & ~(ATTN_CALL_BAND | ATTN_CALL_F32_SCORES | ATTN_CALL_F32_SOFTMAX))
        throw refusal(ATTN_UNSUPPORTED, "call: unknown flags");
    for (const attn_ext *e = c.ext; e; e = e->next)
        if (e->flags & ATTN_EXT_REQUIRED)
            throw refusal(ATTN_UNSUPPORTED, std::string("extension ") + e->id + " is not known");
    check_shapes(c);
    if (c.mask.rank && (c.mask.code != ATTN_CODE_UINT || c.mask.bits != 8))
        throw refusal(ATTN_INVALID, "mask: expected bytes");
    for (const attn_tensor *t : {&c.lse, &c.key_mass, &c.probs})
        if (t->rank && !is_float32(*t))
            throw refusal(ATTN_INVALID, "lse, key_mass and probs are fp32");
    for (const attn_tensor *t : {&c.q, &c.k, &c.v, &c.out, &c.bias})
        if (t->rank && !is_float32(*t))
            throw refusal(ATTN_UNSUPPORTED, "@NAME@ computes in fp32 only");
}

template <typename T> T &at(const attn_tensor &t, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return static_cast<T *>(t.data)[a * t.stride[0] + b * t.stride[1] + c * t.stride[2] + d * t.stride[3]];
}

constexpr double dark = -std::numeric_limits<double>::infinity();

// The score of key j for query i; minus infinity where i may not see j.
double score(const attn_op_call &c, double scale, int64_t b, int64_t h, int64_t i, int64_t j)
{
    const int64_t hk = h / (c.q.shape[1] / c.k.shape[1]);
    if ((c.flags & ATTN_CALL_BAND) && (j - i < c.band_lo || j - i > c.band_hi))
        return dark;
    if (c.mask.rank && !at<unsigned char>(c.mask, b, h, i, j))
        return dark;
    double s = 0;
    for (int64_t d = 0; d < c.q.shape[3]; d++)
        s += double(at<float>(c.q, b, h, i, d)) * double(at<float>(c.k, b, hk, j, d));
    return scale * s + (c.bias.rank ? double(at<float>(c.bias, b, h, i, j)) : 0);
}

// One row; p[Nk] is scratch and ends as the row of the softmax.
void attend_row(const attn_op_call &c, double scale, int64_t b, int64_t h, int64_t i, double *p)
{
    const int64_t Nk = c.k.shape[2], hk = h / (c.q.shape[1] / c.k.shape[1]);
    double top = dark, sum = 0;
    for (int64_t j = 0; j < Nk; j++) {
        p[j] = score(c, scale, b, h, i, j);
        top = p[j] > top ? p[j] : top;
    }
    for (int64_t j = 0; j < Nk; j++)
        sum += p[j] = p[j] == dark ? 0 : std::exp(p[j] - top);
    for (int64_t j = 0; sum > 0 && j < Nk; j++)
        p[j] /= sum;
    for (int64_t d = 0; d < c.v.shape[3]; d++) {
        double o = 0;
        for (int64_t j = 0; j < Nk; j++)
            o += p[j] * double(at<float>(c.v, b, hk, j, d));
        at<float>(c.out, b, h, i, d) = float(o);
    }
    for (int64_t j = 0; c.probs.rank && j < Nk; j++)
        at<float>(c.probs, b, h, i, j) = float(p[j]);
    if (c.lse.rank) {
        attn_tensor lse = c.lse;
        lse.stride[3] = 0;
        at<float>(lse, b, h, i, 0) = sum == 0 ? float(dark) : float(top + std::log(sum));
    }
}

// One body owns a batch, so that the order of the column sums never changes.
void attend_batch(const attn_op_call &c, double scale, int64_t b, double *p, double *column)
{
    const int64_t Nk = c.k.shape[2], H = c.q.shape[1];
    for (int64_t j = 0; j < Nk; j++)
        column[j] = 0;
    for (int64_t h = 0; h < H; h++)
        for (int64_t i = 0; i < c.q.shape[2]; i++) {
            attend_row(c, scale, b, h, i, p);
            for (int64_t j = 0; j < Nk; j++)
                column[j] += p[j];
        }
    for (int64_t j = 0; c.key_mass.rank && j < Nk; j++)
        static_cast<float *>(c.key_mass.data)[b * c.key_mass.stride[0] + j * c.key_mass.stride[1]] =
            H ? float(column[j] / double(H)) : 0;
}

struct job {
    const attn_op_call *call;
    double scale;
};

void body(void *arg, int64_t begin, int64_t end, uint32_t thread) noexcept
{
    const job &j = *static_cast<const job *>(arg);
    const int64_t Nk = j.call->k.shape[2];
    double *p = static_cast<double *>(j.call->scratch) + int64_t(thread) * 2 * Nk;
    for (int64_t b = begin; b < end; b++)
        attend_batch(*j.call, j.scale, b, p, p + Nk);
}

// -- what the host sees ---------------------------------------------------------------------------------------

attn_status create(const attn_host *host, const attn_device *device, const attn_param *params, uint32_t n_params,
                   attn_op **out, attn_error *err) noexcept
{
    return guarded(err, [&] {
        if (device->type != ATTN_DEVICE_CPU)
            throw refusal(ATTN_UNSUPPORTED, "@NAME@ runs on the CPU");
        if (n_params)
            throw refusal(ATTN_INVALID, std::string("parameter '") + params[0].name + "' is not known");
        *out = new attn_op{host};
    });
}

void destroy(attn_op *op) noexcept
{
    delete op;
}

attn_status supports(attn_op *, const attn_op_call *c, attn_error *err) noexcept
{
    return guarded(err, [&] { check_call(*c); });
}

attn_status prepare(attn_op *op, const attn_op_call *c, attn_op_plan **plan, uint64_t *scratch,
                    attn_error *err) noexcept
{
    return guarded(err, [&] {
        check_call(*c);
        const uint64_t slots = op->host->parallel_for ? op->host->max_threads : 1;
        *scratch = slots * 2 * uint64_t(c->k.shape[2]) * sizeof(double);
        *plan = reinterpret_cast<attn_op_plan *>(op);
    });
}

attn_status run(attn_op_plan *plan, const attn_op_call *c, attn_error *err) noexcept
{
    return guarded(err, [&] {
        const attn_host *host = reinterpret_cast<attn_op *>(plan)->host;
        job j = {c, c->scale != 0 ? double(c->scale) : 1 / std::sqrt(double(c->q.shape[3]))};
        if (host->parallel_for)
            host->parallel_for(host->ctx, c->q.shape[0], 1, body, &j);
        else
            body(&j, 0, c->q.shape[0], 0);
    });
}

void release(attn_op_plan *) noexcept {}

} // namespace

const attn_op_api attn_op_v1 = {
    {ATTN_MAGIC, ATTN_ABI, sizeof(attn_op_api), 0, UINT64_C(1) << ATTN_DEVICE_CPU, ATTN_DTYPE_F32, "@ID@", "0.1.0",
     "@VENDOR@", "plain loops in C++"},
    create,
    destroy,
    supports,
    prepare,
    run,
    release,
    nullptr};
