#include "clip_lower.h"

#include <utf8proc.h>

enum { CAPITAL_SIGMA = 0x3A3, SMALL_SIGMA = 0x3C3, FINAL_SIGMA = 0x3C2, DOTTED_I = 0x130 };

static int in_ranges(int32_t c, const int32_t (*ranges)[2], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (c >= ranges[i][0] && c <= ranges[i][1]) {
            return 1;
        }
    }
    return 0;
}

/* Unicode's Case_Ignorable: marks, formats, modifiers, and the word-internal punctuation. */
static int is_case_ignorable(int32_t c)
{
    static const int32_t punctuation[][2] = {
        {0x27, 0x27},     {0x2E, 0x2E},     {0x3A, 0x3A},     {0xB7, 0xB7},
        {0x387, 0x387},   {0x55F, 0x55F},   {0x5F4, 0x5F4},   {0x2018, 0x2019},
        {0x2024, 0x2024}, {0x2027, 0x2027}, {0xFE13, 0xFE13}, {0xFE52, 0xFE52},
        {0xFE55, 0xFE55}, {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E}, {0xFF1A, 0xFF1A},
    };
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return 1;
    default:
        return in_ranges(c, punctuation, sizeof punctuation / sizeof *punctuation);
    }
}

/* Unicode's Cased, of what is not Case_Ignorable: letters with case, and Other_Lowercase and
 * Other_Uppercase that are no modifier letters. */
static int is_cased(int32_t c)
{
    static const int32_t others[][2] = {
        {0xAA, 0xAA},       {0xBA, 0xBA},       {0x2160, 0x217F},   {0x24B6, 0x24E9},
        {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189},
    };
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
        return 1;
    default:
        return in_ranges(c, others, sizeof others / sizeof *others);
    }
}

static int sigma_is_final(const int32_t *in, size_t n, size_t at)
{
    size_t i = at;
    while (i > 0 && is_case_ignorable(in[i - 1])) {
        i--;
    }
    if (i == 0 || !is_cased(in[i - 1])) {
        return 0;
    }
    i = at + 1;
    while (i < n && is_case_ignorable(in[i])) {
        i++;
    }
    return i == n || !is_cased(in[i]);
}

size_t clip_lower(const int32_t *in, size_t n, int32_t *out)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (in[i] == DOTTED_I) {
            out[count++] = 'i';
            out[count++] = 0x307;
        } else if (in[i] == CAPITAL_SIGMA) {
            out[count++] = sigma_is_final(in, n, i) ? FINAL_SIGMA : SMALL_SIGMA;
        } else {
            out[count++] = utf8proc_tolower(in[i]);
        }
    }
    return count;
}
