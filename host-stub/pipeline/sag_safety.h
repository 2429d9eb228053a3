/* sag_safety.h: the safety checker that a model's folder comes with. */
#ifndef ATTNPLUG_PIPELINE_SAG_SAFETY_H
#define ATTNPLUG_PIPELINE_SAG_SAFETY_H

#include "sag_private.h"

/* Loads safety_checker and feature_extractor of the folder where there is one and the options do
 * not say no; tells the log where the model asks for one and runs without. */
attn_status safety_open(struct sag_components *m, const attn_sag_open_options *o, attn_error *err);
void safety_close(struct safety *s); /* NULL does nothing */

/* Fills job->nsfw; makes job->pixels, fp32 with channels last, black where a picture is flagged. */
attn_status job_check(struct sag_job *job);

#endif
