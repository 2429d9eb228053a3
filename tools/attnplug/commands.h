/* commands.h: the subcommands of attnplug, in the order of its help.  To add one: a line here, its
 * file cmd_<name>.c, and that file's name in meson.build. */
#ifndef ATTNPLUG_COMMANDS_H
#define ATTNPLUG_COMMANDS_H

/* clang-format off */
#define COMMANDS(X)                                                            \
    X(list,   "every plugin file there is, and whether it may be used")       \
    X(names,  "every name of a processor or op, and what it stands for")      \
    X(why,    "which op a call takes, and why not the others")                \
    X(attend, "run one op on stored tensors")                                 \
    X(layer,  "run one attention processor on a stored layer")                \
    X(encode, "turn prompts into stored embeddings")                          \
    X(sag,    "draw a picture from a prompt")                                 \
    X(check,  "is a plugin fit to ship?")                                     \
    X(bench,  "how fast is each op?")
/* clang-format on */

/* argv[0] is the subcommand's name. 0 done, 1 the work failed or a check found a fault, 2 wrong
 * usage. */
#define DECLARE(name, summary) int cmd_##name(int argc, char **argv);
COMMANDS(DECLARE)
#undef DECLARE

#endif
