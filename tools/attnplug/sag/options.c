/* options.c: the command line, read and checked subject by subject. */
#include "options.h"

static const char about[] =
    "Draws pictures with Stable Diffusion and self-attention guidance (SAG), every attention layer"
    " in a\nplugin.  The names of the files written go to stdout.  Exit: 0 done, 1 failed, 2 wrong"
    " usage, 130\ninterrupted.  A run that fails or is interrupted leaves no picture behind.";

#define SAG_ADDRESS(subject) &sag_##subject,
const struct sag_subject *const sag_subjects[] = {SAG_SUBJECTS(SAG_ADDRESS)};
#undef SAG_ADDRESS
enum { SUBJECTS = sizeof sag_subjects / sizeof *sag_subjects };
const size_t sag_n_subjects = SUBJECTS;

int count_check(const char *name, int64_t value, int64_t low)
{
    if (value == SAG_NOT_GIVEN || (value >= low && value <= INT32_MAX)) {
        return 0;
    }
    return cli_misuse("--%s: %lld, expected a whole number from %lld to %d", name, (long long)value,
                      (long long)low, INT32_MAX);
}

int arguments_read(struct sag_arguments *a, int argc, char **argv)
{
    cli_option options[SUBJECTS * (SAG_SUBJECT_ROWS + 1)];
    size_t n = 0;
    int first = 0;
    *a = (struct sag_arguments){0};
    for (size_t i = 0; i < SUBJECTS; i++) {
        options[n++] = (cli_option){.help = sag_subjects[i]->name};
        n += sag_subjects[i]->rows(a, options + n);
    }
    const cli_command command = {"attnplug sag --prompt TEXT [OPTIONS]", about, options, n, 0, 0};
    int status = cli_parse(&command, argc, argv, &first);
    for (size_t i = 0; i < SUBJECTS && status == CLI_GO; i++) {
        int wrong = sag_subjects[i]->check ? sag_subjects[i]->check(a) : 0;
        status = wrong ? wrong : CLI_GO;
    }
    return status;
}

void arguments_free(struct sag_arguments *a)
{
    for (size_t i = 0; i < SUBJECTS; i++) {
        if (sag_subjects[i]->free) {
            sag_subjects[i]->free(a);
        }
    }
}

uint32_t arguments_images(const struct sag_arguments *a)
{
    int64_t prompts = a->prompts.embeds.rank ? a->prompts.embeds.shape[0] : a->prompts.texts.n;
    int64_t images = prompts * a->prompts.per_prompt;
    return images > UINT32_MAX ? UINT32_MAX : (uint32_t)images;
}
