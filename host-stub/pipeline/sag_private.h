/* sag_private.h: what the files of the SAG pipeline share: the loaded pipeline and one run of it.
 */
#ifndef ATTNPLUG_PIPELINE_SAG_PRIVATE_H
#define ATTNPLUG_PIPELINE_SAG_PRIVATE_H

#include "attn_sag.h"
#include "compute.h"
#include "custom_diffusion.h"
#include "host_tensor.h"
#include "random.h"
#include "sag_files.h"
#include "sag_linear.h"
#include "scheduler.h"
#include "tensor.h"
#include "text_encoder.h"
#include "tokenizer.h"
#include "unet.h"
#include "vae.h"
#include "vae_encoder.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

/* What pipelines share: everything that a run reads and does not change.  The last one to leave
 * closes it. */
struct sag_components {
    atomic_uint users;
    struct sag_files files;
    char *op; /* as attn_sag_open was given it; NULL: auto */
    struct compute *compute;
    tokenizer *tokenizer;      /* NULL where the model has none: embeddings only */
    struct text_encoder *text; /* likewise */
    /* of the encoders, the adapters' projections and the safety checker: each has one arena */
    pthread_mutex_t encoders_lock;
    struct unet *unet; /* NULL in a pipeline for prompts alone; so is vae */
    struct vae *vae;
    struct lora_set *loras;          /* NULL: none; the models have their terms from it */
    struct custom_diffusion *custom; /* NULL: none */
    struct image_prompts *pictures;  /* IP-Adapters; NULL: none */
    struct safety *safety;           /* NULL: none */
};

struct attn_sag {
    struct sag_components *components;
    /* the components' own, for short */
    const char *model;
    struct compute *compute;
    tokenizer *tokenizer;
    struct text_encoder *text;
    struct unet *unet;
    struct vae *vae;

    struct vae_encoder *encoder; /* from the first attn_sag_vae_encode on */
    scheduler *scheduler;
    struct pass *pass; /* UNet and decoder share an arena: they never run at once */
    /* What `pass` is for: images, guided, latents' height and width, tokens, steps up to 16. */
    int64_t planned[6];
    atomic_int cancelled; /* lock-free, so that a signal handler may set it */
    void (*log)(void *ctx, int32_t level, const char *text);
    void *log_ctx;
};

enum { IMAGE_PROMPTS = 32 }; /* as many adapters as the processor ip_adapter takes */

enum output_type { OUTPUT_NP, OUTPUT_PT, OUTPUT_PIL, OUTPUT_LATENT };

/* One run: the options resolved and checked, and every array that it takes.
 * Latents are [images, channels, h, w], as the random numbers and callers have them; the UNet gets
 * them with channels last. */
struct sag_job {
    attn_sag *sag;
    attn_sag_run_options o;
    attn_error *err;

    int64_t prompts, per_prompt, images;
    int64_t height, width; /* pixels */
    int64_t channels, h, w, mid_h, mid_w;
    int64_t tokens, dim; /* of the prompt embeddings */
    int32_t guided;      /* classifier-free guidance */
    int32_t attended;    /* self-attention guidance */
    enum output_type wanted;
    float guidance_scale, sag_scale, eta;
    double lora_scale; /* of the run; lora_scales: that times each file's, for the UNet */
    float lora_scales[LORA_MOST_FILES];
    const float *timesteps;
    size_t steps;     /* calls of the model, of which some schedulers take two a step */
    size_t each, all; /* floats in one image's latents, in all images' */

    float *embeds;           /* [guided ? 2 : 1][images][tokens][dim], unconditional ones first */
    attn_tensor encoder;     /* all of them at the device */
    attn_tensor encoder_sag; /* those of the degraded pass: the first `images` */
    uint32_t n_pictures; /* IP-Adapters; of each the tokens [as embeds][pictures][tokens][dim] */
    attn_tensor pictures[IMAGE_PROMPTS];       /* at the host */
    attn_tensor picture_embeds[IMAGE_PROMPTS]; /* at the device */
    uint8_t *nsfw;                             /* [images] what the safety checker said */
    float *start;                              /* latents; then the result of each step */
    float *input;                              /* [2 all] what the UNet is shown, channels last */
    float *output;             /* [2 all] what it answers, channels last, then first */
    float *predicted;          /* [all] the guided prediction */
    float *clean, *noise;      /* [all] x0 and epsilon of the reference prediction */
    float *degraded;           /* [all] */
    float *reference;          /* [all] what the degraded prediction is compared with */
    float *scratch;            /* [h w] of the blur */
    float *mass;               /* [2 images][mid_h mid_w] */
    float *masses;             /* [steps][images][mid_h mid_w] */
    float *times;              /* [2 images] */
    uint8_t *mask;             /* [mid_h mid_w] */
    void *pixels;              /* [images][height][width][3], then what `wanted` says */
    struct linear_run *linear; /* the scheduler as tables, where the loop runs at the device */
    random_generator *generators;
    uint32_t n_generators;
    char *warning;
    uint64_t bytes; /* of the arrays, as compute_took was told */
    double seconds_encode, seconds_steps, seconds_decode;
};

/* sag_components.c: a model's files, found and looked at, for components_leave; then their
 * contents.
 */
attn_status components_open(const attn_sag_open_options *o, struct sag_components **out,
                            attn_error *err);
attn_status components_load(struct sag_components *m, attn_registry *registry,
                            const attn_sag_open_options *o, attn_error *err);
struct sag_components *components_join(struct sag_components *m);
void components_leave(struct sag_components *m); /* NULL does nothing */

/* sag_options.c: the options of job->o, checked and resolved. */
attn_status job_read(struct sag_job *job);

/* sag_device.c: the compute that the options ask for. */
attn_status sag_compute(attn_registry *registry, const attn_sag_open_options *o,
                        struct compute **out, attn_error *err);

/* sag_job.c: checks the options, encodes the prompts, takes the arrays; job_end undoes all. */
attn_status job_begin(struct sag_job *job, attn_sag *sag, const attn_sag_run_options *options,
                      attn_error *err);
void job_end(struct sag_job *job);
/* Memory of the run for so many bytes, counted until job_end; NULL: there is none. */
void *job_take(struct sag_job *job, size_t bytes);
/* Normal numbers for all images, each from its generator. */
void noise_draw(struct sag_job *job, float *out);

/* sag_prompt.c: prompts [n] as embeddings [n, tokens, dim] into `out`.  *warning, where texts were
 * cut, is one line for the caller to free, else unchanged. */
attn_status prompts_encode(attn_sag *sag, const char *const *prompts, uint32_t n,
                           uint32_t clip_skip, double lora_scale, float *out, char **warning,
                           attn_error *err);
/* The pipeline has what prompts need, else which folder is missing. */
attn_status prompts_possible(const attn_sag *sag, attn_error *err);

/* sag_unet.c: plans everything a run will compute. */
attn_status job_plan(struct sag_job *job);
/* One prediction for `batch` images: job->input (channels last) to job->output (channels first).
 * `encoder` has the batch's embeddings.  With `mass`, job->mass is filled.  `same`: encoder is what
 * it was at this batch's last prediction. */
attn_status unet_predict(attn_work *w, struct sag_job *job, int64_t batch,
                         const attn_tensor *encoder, int32_t mass, int32_t same);
/* The image prompts of a pass over `batch` images: the first job->n_pictures of `pictures`. */
void job_pictures(const struct sag_job *job, int64_t batch, attn_tensor *pictures);
/* What a recording of the UNet depends on of them. */
struct picture_key {
    const void *data[IMAGE_PROMPTS];
    int64_t tokens[IMAGE_PROMPTS];
};
void pictures_key(const attn_tensor *pictures, uint32_t n, struct picture_key *key);
/* Latents of `batch` images to pixels [batch, height, width, 3], 0 to 1. */
attn_status images_decode(attn_work *w, struct sag_job *job, int64_t batch, const float *latents,
                          float *pixels);
/* How many images are decoded at once. */
int64_t decode_batch(const struct sag_job *job);
/* Between [batch, channels, h, w] and [batch, h, w, channels]. */
void channels_last(const struct sag_job *job, const float *in, float *out, int64_t batch);
void channels_first(const struct sag_job *job, const float *in, float *out, int64_t batch);

/* sag_loop.c */
attn_status job_denoise(struct sag_job *job);
attn_status cancel_check(const struct sag_job *job, size_t step);
attn_status latents_check(const struct sag_job *job, size_t step);
attn_status callback_tell(const struct sag_job *job, size_t step);

/* sag_device_loop.c: job_denoise at a device, with job->linear; dry, what it will do. */
attn_status device_loop_plan(attn_work *w, struct sag_job *job);
attn_status device_loop(attn_work *w, struct sag_job *job);

/* sag_unet.c: what a run of the job's sizes queues, in a dry pass of the caller's. */
attn_status job_queue_dry(attn_work *w, struct sag_job *job);

/* sag_fit.c: after a run for which device memory was too small: adds to the error's text which
 * smaller setting would have fitted. */
void fit_suggest(struct sag_job *job);

/* sag_run.c */
double seconds_now(void);

#endif
