/* attn_sag.h: libattnsag's pipeline: Stable Diffusion with self-attention guidance (SAG), every
 * attention layer in a plugin.
 *
 * Hong et al. 2022, "Improving Sample Quality of Diffusion Models Using Self-Attention Guidance";
 * diffusers v0.26.3, pipelines/stable_diffusion_sag/pipeline_stable_diffusion_sag.py.
 * Conventions as in attn_host.h.  Zero-fill an options struct, set `size`, then what you want: 0
 * and NULL stand for the defaults given beside each field.
 */
#ifndef ATTN_SAG_H
#define ATTN_SAG_H

#include "attn_layer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attn_sag attn_sag; /* a loaded pipeline */

/* A processor, by a name or by a plugin's id (attn_name_find_in), for the UNet's layers whose name
 * matches `glob` (diffusers' name without ".processor"). */
typedef struct {
    const char *glob; /* NULL: every layer */
    attn_layer_spec spec;
} attn_sag_processor;

/* A LoRA file (.safetensors, in any of diffusers' forms of names or kohya's), or a folder that has
 * pytorch_lora_weights.safetensors. */
typedef struct {
    const char *file;
    uint32_t flags; /* ATTN_SAG_LORA_TEXT_SCALE; 0 */
    uint32_t reserved;
    double scale;              /* 1: as it was trained */
    double text_encoder_scale; /* with ATTN_SAG_LORA_TEXT_SCALE, else as `scale` */
} attn_sag_lora;
#define ATTN_SAG_LORA_TEXT_SCALE 1u

/* Vectors of a new token: textual inversion, or a modifier token of Custom Diffusion. */
typedef struct {
    const char *file;  /* .safetensors, or a folder that has learned_embeds.safetensors */
    const char *token; /* how prompts call it; NULL: as the file says */
} attn_sag_inversion;

/* An IP-Adapter (plain, Plus or full): pictures as prompts. */
typedef struct {
    const char *file; /* .safetensors with the names of its first publication */
    double scale;     /* of what the pictures add; 1: as it was trained */
} attn_sag_ip_adapter;

typedef struct {
    uint32_t size;      /* sizeof(attn_sag_open_options) */
    uint32_t flags;     /* ATTN_SAG_EMA, ATTN_SAG_PROMPTS_ONLY, ATTN_SAG_LORA_IGNORE_UNKNOWN,
                           ATTN_SAG_NO_SAFETY_CHECKER; 0 */
    const char *model;  /* a folder in diffusers' format, or one .safetensors file with a whole
                           Stable Diffusion 1.x or 2.x model under its original names */
    const char *device; /* "cpu" (default), "cuda", "cuda:1", ... */
    const char *dtype;  /* "f32" (default), "f16", "bf16": of weights and activations; on a CPU
                           computed in fp32, with attention's inputs cast where an op wants halves */
    uint32_t n_threads; /* 0: one per core allowed */
    uint32_t n_processors;
    const attn_sag_processor
        *processors;       /* later ones win; a layer that none matches has standard + auto */
    const char *op;        /* a name or a plugin's id, for every attention of every model that a
                              processor's own attention_op does not name; NULL: auto.  An op that
                              refuses one of them ends the run with its own words, but for the
                              layer that SAG asks for key_mass, which then has another;
                              attention_op in a processor's params gives an op to some layers
                              alone */
    const char *scheduler; /* diffusers' class name, "Scheduler" at its end or not, in place of the
                              folder's; NULL: the folder's */
    void (*log)(void *ctx, int32_t level, const char *text); /* as in attn_host; may be NULL */
    void *log_ctx;                                           /* NULL */
    attn_sag
        *components; /* another pipeline, whose tokenizer, text encoder, UNet with its processors
                        and VAE this one shall use; then all that these are loaded with stays
                        unset, which leaves scheduler, prediction_type and log.  It is open during
                        attn_sag_open, and may be closed before this one.  NULL */
    const char *variant; /* "fp16": of a folder's files, those of that variant where a part has
                            one, as in diffusers; NULL: those without, else fp16 */
    const char *prediction_type; /* "epsilon", "v_prediction" or "sample" in place of the model's
                                    own; NULL.  A single file of Stable Diffusion 2.x does not say
                                    which it wants and is taken for v_prediction, as in
                                    diffusers: its 512 base model needs "epsilon" */
    const attn_sag_lora *loras; /* n_loras, at most 64: all act at once, each at its scale times the
                                   run's cross_attention_kwargs "scale"; NULL */
    const attn_sag_inversion *inversions; /* n_inversions; NULL */
    uint32_t n_loras, n_inversions;
    const char *custom_diffusion; /* weights of Custom Diffusion: a file, or a folder that has
                                     pytorch_custom_diffusion_weights.safetensors; NULL */
    const attn_sag_ip_adapter *ip_adapters; /* n_ip_adapters, at most 32, that act at once; NULL */
    uint32_t n_ip_adapters, reserved;
    const char *image_encoder; /* the folder of CLIP's image encoder for IP-Adapters; NULL: the
                                  model's image_encoder, else the one beside the first adapter */
} attn_sag_open_options;
/* Of a single file that has them, the UNet's averaged weights (model_ema.*). */
#define ATTN_SAG_EMA 1u
/* Tokenizer and text encoder alone, for attn_sag_encode: attn_sag_run is ATTN_INVALID. */
#define ATTN_SAG_PROMPTS_ONLY 2u
/* Tensors of LoRA files that fit nothing in the model are told to `log`; else they are an error. */
#define ATTN_SAG_LORA_IGNORE_UNKNOWN 4u
/* Without the safety checker that the model's folder has. */
#define ATTN_SAG_NO_SAFETY_CHECKER 8u

/* registry outlives the pipeline. Errors name the file and what was expected. [any]
 *
 * Threads: a pipeline is used by one thread at a time, but for attn_sag_cancel.  Pipelines with the
 * same components may run at once in several threads: weights are read only, and each has a
 * scheduler, plans and an arena of its own (prompts are encoded one after the other). */
ATTN_API attn_status attn_sag_open(attn_registry *registry, const attn_sag_open_options *options,
                                   attn_sag **sag, attn_error *err);
/* [owner] NULL does nothing.  Components go with the last pipeline that has them. */
ATTN_API void attn_sag_close(attn_sag *sag);

/* Told after each step, as diffusers does it: not of a scheduler's warm-up, and once for the two
 * calls that a step of a second-order scheduler takes.  step: from 0 to n_steps - 1; timestep: the
 * scheduler's; latents: fp32
 * [n_images, 4, h, w], the callback's to read until it returns.  Anything but 0 cancels.  Called in
 * the thread of attn_sag_run. */
typedef int32_t (*attn_sag_callback)(void *ctx, uint32_t step, uint32_t n_steps, float timestep,
                                     const attn_tensor *latents);

/* A picture as a prompt: one of file and pixels. */
typedef struct {
    uint32_t adapter; /* which of ip_adapters sees it, from 0; each has one picture or several */
    uint32_t reserved;
    const char *file;          /* PNG, JPEG or WebP */
    const attn_tensor *pixels; /* host bytes [height, width, 3], contiguous */
} attn_sag_image_prompt;

/* diffusers' arguments of the call, under its names; lists are arrays with their lengths. */
typedef struct {
    uint32_t size;  /* sizeof(attn_sag_run_options) */
    uint32_t flags; /* ATTN_SAG_SET_..., ATTN_SAG_VAE_...; 0 */

    const char *const *prompts; /* n_prompts texts in UTF-8; NULL with prompt_embeds */
    uint32_t n_prompts;
    uint32_t n_negative; /* texts: 0 (then "" for all), 1 for all, or one for each prompt */
    const char *const *negative_prompts;
    const attn_tensor *prompt_embeds; /* host fp32 [prompts, tokens, C] in place of prompts; NULL */
    const attn_tensor *negative_prompt_embeds; /* of the same shape; NULL */

    const attn_tensor *latents;     /* host fp32 [images, 4, h, w], before init_noise_sigma, in
                                       place of random ones; NULL */
    uint32_t height, width;         /* pixels; 0: those of latents, else the model's own */
    uint32_t num_inference_steps;   /* 0: 50 */
    uint32_t num_images_per_prompt; /* 0: 1 */
    double guidance_scale;          /* with ATTN_SAG_SET_GUIDANCE, else 7.5; on when > 1 */
    double sag_scale;               /* with ATTN_SAG_SET_SAG, else 0.75; on when > 0 */
    double eta;                     /* DDIM's, 0 to 1; 0 */
    const uint64_t *seeds;          /* generator: n_seeds of them */
    uint32_t n_seeds;               /* 0: one generator seeded 0; 1: one generator that draws for
                                       all images; else one for each image */
    uint32_t clip_skip;             /* layers of the text encoder to leave out for the prompts, not
                                       the negative ones; 0; with prompts alone */
    attn_sag_callback callback;     /* NULL: none */
    void *callback_ctx;             /* NULL */
    uint32_t callback_steps;        /* steps from one call of callback to the next; 0: 1 */
    uint32_t n_cross_attention_kwargs; /* 0 */
    const attn_tensor *sag_masks; /* SAG masks to use in place of the model's own, bytes [steps,
                                     images, tokens]: for comparisons; NULL */
    const char *output_type;      /* NULL: "np".  Of result.images: "np" fp32 [n, height, width,
                                     3], "pt" fp32 [n, 3, height, width], both 0 to 1; "pil" bytes
                                     [n, height, width, 3]; "latent": images stays absent */
    const attn_param *cross_attention_kwargs; /* runtime values for every processor of the UNet in
                                           both passes: "scale" of LoRA, which the text encoder's
                                           takes too, and what else a processor takes */
    const attn_sag_image_prompt *ip_adapter_image; /* n_ip_adapter_image, for all prompts; NULL */
    const attn_tensor *ip_adapter_image_embeds;    /* in place of pictures, one for each adapter:
                                    host fp32, contiguous, of what the image encoder gives: [2,
                                    pictures, width] (plain) or [2, pictures, tokens, width]
                                    (hidden_states[-2]), negative ones first; [1, ..] without
                                    guidance, and for plain adapters, whose negative ones are 0;
                                    NULL */
    uint32_t n_ip_adapter_image, n_ip_adapter_image_embeds;
} attn_sag_run_options;
#define ATTN_SAG_SET_GUIDANCE 1u
#define ATTN_SAG_SET_SAG      2u
#define ATTN_SAG_VAE_SLICING  4u /* decode images one by one: less memory, the same images */
#define ATTN_SAG_VAE_TILING                                                                        \
    8u /* decode in tiles where an image is larger than the model's own:                           \
          less memory, nearly the same images */

/* What came out.  Owned by the result; free with attn_sag_result_free. */
typedef struct {
    uint32_t size; /* sizeof(attn_sag_result), set by the caller */
    uint32_t n_images;
    attn_tensor images;    /* as output_type says */
    attn_tensor latents;   /* fp32 [n_images, 4, h, w] */
    attn_tensor key_mass;  /* fp32 [steps, n_images, tokens]: what each mask was made of; absent
                              without SAG */
    uint64_t peak_bytes;   /* the most memory for tensors at once since the components were loaded,
                              of all pipelines that share them: weights as far as they were copied
                              or packed, arenas, arrays, images; files that are mapped and read in
                              place come on top */
    double seconds_encode; /* text encoder */
    double seconds_steps;  /* the denoising loop */
    double seconds_decode;
    const char *warning; /* "" or one line: what a prompt over 77 tokens lost */
    const uint8_t *nsfw; /* [n_images] ATTN_SAG_NOT_CHECKED, _CLEAN, or _FLAGGED: what the safety
                            checker said; flagged images are black */
    void *owner;
} attn_sag_result;
#define ATTN_SAG_NOT_CHECKED 0u /* no checker, or output_type "latent" */
#define ATTN_SAG_CLEAN       1u
#define ATTN_SAG_FLAGGED     2u

/* [owner], but attn_sag_cancel is [any]. ATTN_CANCELLED when stopped; nothing is left behind. */
ATTN_API attn_status attn_sag_run(attn_sag *sag, const attn_sag_run_options *options,
                                  attn_sag_result *result, attn_error *err);
ATTN_API void attn_sag_result_free(attn_sag_result *result);
/* Stops the run in progress after the current step. Async-signal-safe. [any] */
ATTN_API void attn_sag_cancel(attn_sag *sag);

/* Which processor and op each of the UNet's layers has; ATTN_NOT_FOUND past the end. Texts live as
 * long as the pipeline. op is "" before the first run. */
ATTN_API attn_status attn_sag_layer(attn_sag *sag, uint32_t index, const char **layer,
                                    const char **processor, const char **op);

/* diffusers' class of the scheduler in use. Lives as long as the pipeline. [any] */
ATTN_API const char *attn_sag_scheduler(const attn_sag *sag);

/* Prompt embeddings: fp32 [n, 77, C], to be freed with attn_sag_embeds_free; warning, which may be
 * NULL, as in attn_sag_result.  [owner] */
ATTN_API attn_status attn_sag_encode(attn_sag *sag, const char *const *prompts, uint32_t n_prompts,
                                     uint32_t clip_skip, attn_tensor *embeds, char *warning,
                                     uint32_t warning_bytes, attn_error *err);
ATTN_API void attn_sag_embeds_free(attn_tensor *embeds);

/* Pictures to latents by the model's VAE, multiplied by its scaling_factor, as the UNet was trained
 * on them.  images: host fp32 [n, height, width, 3],
 * contiguous, 0 to 1, sides of at least the VAE's factor.  seed: a sample of the distribution from
 * torch's generator of that seed, drawn for all images at once; NULL: its mode.  latents: fp32
 * [n, 4, height / factor, width / factor], to be freed with attn_sag_embeds_free.  The first call
 * loads the encoder, which stays until attn_sag_close. [owner] */
ATTN_API attn_status attn_sag_vae_encode(attn_sag *sag, const attn_tensor *images,
                                         const uint64_t *seed, attn_tensor *latents,
                                         attn_error *err);

#ifdef __cplusplus
}
#endif

#endif /* ATTN_SAG_H */
