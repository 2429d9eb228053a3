/* clip_vocabulary.h: the merges of CLIP's byte-pair encoding (clip/merges.txt), inside the library.
 */
#ifndef ATTNPLUG_PIPELINE_CLIP_VOCABULARY_H
#define ATTNPLUG_PIPELINE_CLIP_VOCABULARY_H

extern const char clip_merges[];
extern const char clip_merges_end[]; /* one past the last byte */

#endif
