/* Hopper's warpgroup matrix multiply, m64nNk16 with fp32 accumulators, one wrapper for each N in
 * use.
 *
 * A comes from shared memory (ss) or registers (rs), B from shared memory; TB 1 reads B as N-major
 * (V in P V), ADD 0 overwrites the accumulators. Layout of the accumulators: PTX ISA, "Register
 * Fragments for wgmma.mma_async.m64nNk16": value i of a thread lies in row warp * 16 + lane / 4 + 8
 * * (i / 2 % 2) and column i / 4 * 8 + lane % 4 * 2 + i % 2.
 */
#ifndef FLASH_SM90_WGMMA_CUH
#define FLASH_SM90_WGMMA_CUH

#include <cstdint>

template <int N> struct Wgmma;

#define WGMMA_SS(TY, NS, LIST, A, B, ADDP, TBP, ...)                                               \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADDP ", 0;\n"                                 \
                 "wgmma.mma_async.sync.aligned.m64n" NS "k16.f32." TY "." TY " " LIST ", " A       \
                 ", " B ", p, 1, 1, 0, " TBP ";\n}\n"                                              \
                 : __VA_ARGS__                                                                     \
                 : "l"(a), "l"(b), "n"(ADD), "n"(TB))
#define WGMMA_RS(TY, NS, LIST, A0, A1, A2, A3, B, ADDP, TBP, ...)                                  \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADDP ", 0;\n"                                 \
                 "wgmma.mma_async.sync.aligned.m64n" NS "k16.f32." TY "." TY " " LIST ", {" A0     \
                 "," A1 "," A2 "," A3 "}, " B ", p, 1, 1, " TBP ";\n}\n"                           \
                 : __VA_ARGS__                                                                     \
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "n"(ADD), "n"(TB))
#define WGMMA_ACC4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define WGMMA_DEFINE(N, LIST, P0, P1, P2, P3, P4, P5, P6, ...)                                     \
    template <> struct Wgmma<N> {                                                                  \
        template <bool BF, int TB, int ADD>                                                        \
        static __device__ __forceinline__ void ss(float (&d)[N / 2], uint64_t a, uint64_t b)       \
        {                                                                                          \
            if constexpr (BF)                                                                      \
                WGMMA_SS("bf16", #N, LIST, P0, P1, P2, P3, __VA_ARGS__);                           \
            else                                                                                   \
                WGMMA_SS("f16", #N, LIST, P0, P1, P2, P3, __VA_ARGS__);                            \
        }                                                                                          \
        template <bool BF, int TB, int ADD>                                                        \
        static __device__ __forceinline__ void rs(float (&d)[N / 2], uint32_t a0, uint32_t a1,     \
                                                  uint32_t a2, uint32_t a3, uint64_t b)            \
        {                                                                                          \
            if constexpr (BF)                                                                      \
                WGMMA_RS("bf16", #N, LIST, P0, P1, P2, P3, P4, P5, P6, __VA_ARGS__);               \
            else                                                                                   \
                WGMMA_RS("f16", #N, LIST, P0, P1, P2, P3, P4, P5, P6, __VA_ARGS__);                \
        }                                                                                          \
    };

// clang-format off
WGMMA_DEFINE(8,
    "{%0,%1,%2,%3}",
    "%4", "%5", "%6", "%7", "%8", "%9", "%10",
    WGMMA_ACC4(0))
WGMMA_DEFINE(16,
    "{%0,%1,%2,%3,%4,%5,%6,%7}",
    "%8", "%9", "%10", "%11", "%12", "%13", "%14",
    WGMMA_ACC4(0), WGMMA_ACC4(4))
WGMMA_DEFINE(32,
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}",
    "%16", "%17", "%18", "%19", "%20", "%21", "%22",
    WGMMA_ACC4(0), WGMMA_ACC4(4), WGMMA_ACC4(8), WGMMA_ACC4(12))
WGMMA_DEFINE(40,
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
    "%16,%17,%18,%19}",
    "%20", "%21", "%22", "%23", "%24", "%25", "%26",
    WGMMA_ACC4(0), WGMMA_ACC4(4), WGMMA_ACC4(8), WGMMA_ACC4(12), WGMMA_ACC4(16))
WGMMA_DEFINE(64,
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}",
    "%32", "%33", "%34", "%35", "%36", "%37", "%38",
    WGMMA_ACC4(0), WGMMA_ACC4(4), WGMMA_ACC4(8), WGMMA_ACC4(12), WGMMA_ACC4(16), WGMMA_ACC4(20),
    WGMMA_ACC4(24), WGMMA_ACC4(28))
WGMMA_DEFINE(80,
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
    "%32,%33,%34,%35,%36,%37,%38,%39}",
    "%40", "%41", "%42", "%43", "%44", "%45", "%46",
    WGMMA_ACC4(0), WGMMA_ACC4(4), WGMMA_ACC4(8), WGMMA_ACC4(12), WGMMA_ACC4(16), WGMMA_ACC4(20),
    WGMMA_ACC4(24), WGMMA_ACC4(28), WGMMA_ACC4(32), WGMMA_ACC4(36))
WGMMA_DEFINE(96,
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47}",
    "%48", "%49", "%50", "%51", "%52", "%53", "%54",
    WGMMA_ACC4(0), WGMMA_ACC4(4), WGMMA_ACC4(8), WGMMA_ACC4(12), WGMMA_ACC4(16), WGMMA_ACC4(20),
    WGMMA_ACC4(24), WGMMA_ACC4(28), WGMMA_ACC4(32), WGMMA_ACC4(36), WGMMA_ACC4(40), WGMMA_ACC4(44))
WGMMA_DEFINE(128,
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
    "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}",
    "%64", "%65", "%66", "%67", "%68", "%69", "%70",
    WGMMA_ACC4(0), WGMMA_ACC4(4), WGMMA_ACC4(8), WGMMA_ACC4(12), WGMMA_ACC4(16), WGMMA_ACC4(20),
    WGMMA_ACC4(24), WGMMA_ACC4(28), WGMMA_ACC4(32), WGMMA_ACC4(36), WGMMA_ACC4(40), WGMMA_ACC4(44),
    WGMMA_ACC4(48), WGMMA_ACC4(52), WGMMA_ACC4(56), WGMMA_ACC4(60))
WGMMA_DEFINE(160,
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
    "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
    "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79}",
    "%80", "%81", "%82", "%83", "%84", "%85", "%86",
    WGMMA_ACC4(0), WGMMA_ACC4(4), WGMMA_ACC4(8), WGMMA_ACC4(12), WGMMA_ACC4(16), WGMMA_ACC4(20),
    WGMMA_ACC4(24), WGMMA_ACC4(28), WGMMA_ACC4(32), WGMMA_ACC4(36), WGMMA_ACC4(40), WGMMA_ACC4(44),
    WGMMA_ACC4(48), WGMMA_ACC4(52), WGMMA_ACC4(56), WGMMA_ACC4(60), WGMMA_ACC4(64), WGMMA_ACC4(68),
    WGMMA_ACC4(72), WGMMA_ACC4(76))
WGMMA_DEFINE(176,
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
    "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
    "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
    "%80,%81,%82,%83,%84,%85,%86,%87}",
    "%88", "%89", "%90", "%91", "%92", "%93", "%94",
    WGMMA_ACC4(0), WGMMA_ACC4(4), WGMMA_ACC4(8), WGMMA_ACC4(12), WGMMA_ACC4(16), WGMMA_ACC4(20),
    WGMMA_ACC4(24), WGMMA_ACC4(28), WGMMA_ACC4(32), WGMMA_ACC4(36), WGMMA_ACC4(40), WGMMA_ACC4(44),
    WGMMA_ACC4(48), WGMMA_ACC4(52), WGMMA_ACC4(56), WGMMA_ACC4(60), WGMMA_ACC4(64), WGMMA_ACC4(68),
    WGMMA_ACC4(72), WGMMA_ACC4(76), WGMMA_ACC4(80), WGMMA_ACC4(84))
WGMMA_DEFINE(256,
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
    "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
    "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"
    "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"
    "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"
    "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127}",
    "%128", "%129", "%130", "%131", "%132", "%133", "%134",
    WGMMA_ACC4(0), WGMMA_ACC4(4), WGMMA_ACC4(8), WGMMA_ACC4(12), WGMMA_ACC4(16), WGMMA_ACC4(20),
    WGMMA_ACC4(24), WGMMA_ACC4(28), WGMMA_ACC4(32), WGMMA_ACC4(36), WGMMA_ACC4(40), WGMMA_ACC4(44),
    WGMMA_ACC4(48), WGMMA_ACC4(52), WGMMA_ACC4(56), WGMMA_ACC4(60), WGMMA_ACC4(64), WGMMA_ACC4(68),
    WGMMA_ACC4(72), WGMMA_ACC4(76), WGMMA_ACC4(80), WGMMA_ACC4(84), WGMMA_ACC4(88), WGMMA_ACC4(92),
    WGMMA_ACC4(96), WGMMA_ACC4(100), WGMMA_ACC4(104), WGMMA_ACC4(108), WGMMA_ACC4(112), WGMMA_ACC4(116),
    WGMMA_ACC4(120), WGMMA_ACC4(124))
// clang-format on

#endif
