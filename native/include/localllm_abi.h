/* The whole border between Python and the core: every type and function, and nothing else. Both readers take
 * this file as it is: the C compiler through localllm.h, Python through cffi. So it holds no preprocessor line.
 *
 * Ownership: ll_*_open gives a handle, the matching ll_*_close takes it back. A model borrows its file, a runner
 * borrows its model: close in reverse order of opening. Pointers handed out live as long as their handle.
 * Threads: a file and a model are immutable and may be shared; a runner belongs to one thread at a time.
 * Functions that can fail return LL_OK or a negative code, and ll_error() then holds the calling thread's reason. */

typedef struct ll_gguf ll_gguf;     /* a mapped GGUF file, all of its splits */
typedef struct ll_model ll_model;   /* weights bound to an architecture */
typedef struct ll_runner ll_runner; /* one device, one KV pool, one call at a time */

enum {
    LL_OK = 0,
    LL_EINVAL = -1,       /* an argument is out of its range */
    LL_EIO = -2,          /* a file cannot be opened, read or mapped */
    LL_EFORMAT = -3,      /* a file contradicts the GGUF format or itself */
    LL_EUNSUPPORTED = -4, /* well formed, but an architecture, type or feature that is not built */
    LL_ENOMEM = -5,       /* memory that was asked for is not there */
    LL_EDEVICE = -6       /* the device failed, or there is none */
};

/* Tensor types, numbered as in GGUF files. */
enum {
    LL_F32 = 0,
    LL_F16 = 1,
    LL_Q4_0 = 2,
    LL_Q4_1 = 3,
    LL_Q5_0 = 6,
    LL_Q5_1 = 7,
    LL_Q8_0 = 8,
    LL_Q2_K = 10,
    LL_Q3_K = 11,
    LL_Q4_K = 12,
    LL_Q5_K = 13,
    LL_Q6_K = 14,
    LL_IQ4_NL = 20,
    LL_IQ4_XS = 23,
    LL_BF16 = 30,
    LL_MXFP4 = 39,
    LL_TYPE_LIMIT = 40
};

/* Types of a metadata value, numbered as in GGUF files. */
enum {
    LL_KV_UINT8 = 0,
    LL_KV_INT8 = 1,
    LL_KV_UINT16 = 2,
    LL_KV_INT16 = 3,
    LL_KV_UINT32 = 4,
    LL_KV_INT32 = 5,
    LL_KV_FLOAT32 = 6,
    LL_KV_BOOL = 7,
    LL_KV_STRING = 8,
    LL_KV_ARRAY = 9,
    LL_KV_UINT64 = 10,
    LL_KV_INT64 = 11,
    LL_KV_FLOAT64 = 12
};

enum { LL_CPU = 0, LL_CUDA = 1 };

const char *ll_version(void);
const char *ll_abi_hash(void); /* SHA-256 of this file as compiled, in hexadecimal */
const char *ll_error(void);    /* why the last call of this thread failed; never NULL */

/* ---- files ---- */

typedef struct {
    const char *key;    /* (key_len) bytes, not terminated */
    uint64_t key_len;
    int32_t type;       /* LL_KV_* */
    int32_t item_type;  /* of an array's items; otherwise equal to type */
    uint64_t count;     /* items of an array; otherwise 1 */
    const void *data;   /* unaligned, little-endian; of a string its bytes; of a string array its first item */
    uint64_t bytes;     /* at `data`; in a string array every item is a uint64 length and that many bytes */
} ll_kv;

typedef struct {
    const char *name;   /* (name_len) bytes, not terminated */
    uint64_t name_len;
    int32_t type;       /* LL_F32 ... ; any number that the file holds, known or not */
    int32_t n_dims;
    uint64_t dims[4];   /* fastest first: columns, rows, ... ; 1 beyond n_dims */
    const void *data;   /* in the map; NULL if the type is unknown */
    uint64_t bytes;     /* 0 if the type is unknown */
    int32_t split;      /* index of the file that holds it */
} ll_tensor;

/* Opens `path` and, when it is the first of a split model, its siblings. */
int ll_gguf_open(ll_gguf **out, const char *path);
void ll_gguf_close(ll_gguf *file);
/* LL_EIO once a part was written to, cut short or could not be read: what is computed from it is worthless. Every step
 * on the file asks this itself. */
int ll_gguf_check(const ll_gguf *file);
/* For the process: reading a map whose file was cut short gives zeros, which ll_gguf_check tells, where it would end
 * the process by SIGBUS. Handles that signal from now on; what is about no map of ours goes to the handler before. */
int ll_guard_files(void);
uint32_t ll_gguf_version(const ll_gguf *file);
uint64_t ll_gguf_bytes(const ll_gguf *file); /* of all splits */
int64_t ll_gguf_kv_count(const ll_gguf *file);
int64_t ll_gguf_tensor_count(const ll_gguf *file);
int ll_gguf_kv(const ll_gguf *file, int64_t index, ll_kv *out);
int ll_gguf_tensor(const ll_gguf *file, int64_t index, ll_tensor *out);
/* Splits a string array: ends[i] is the end of item i in `text`, which must hold kv.bytes - 8 * kv.count bytes. */
int ll_gguf_strings(const ll_gguf *file, int64_t index, uint64_t *ends, char *text);

/* ---- models ---- */

typedef struct {
    const char *arch;    /* name of the architecture's row */
    int32_t n_layers, n_ctx, n_embd, n_ff, n_vocab, n_heads, n_kv_heads, head_dim;
    uint64_t weight_bytes;
    uint64_t n_params;
    int32_t main_type;   /* tensor type of the largest share of the weights */
} ll_model_info;

int ll_model_open(ll_model **out, const ll_gguf *file);
void ll_model_close(ll_model *model);
void ll_model_get_info(const ll_model *model, ll_model_info *out);
const char *ll_arch_names(void); /* those that can run, separated by ", " */

/* ---- running ---- */

typedef struct {
    int32_t device;     /* LL_CPU or LL_CUDA */
    int32_t threads;    /* 0: one per core this process may use */
    int32_t kv_type;    /* LL_F16, LL_BF16, LL_F32 or LL_Q8_0 */
    int32_t block_size; /* tokens per KV block: 16 or 32 */
    int32_t n_blocks;   /* KV blocks in the pool */
    int32_t max_tokens; /* of one step, all rows together */
    int32_t max_rows;   /* sequences in one step */
    int32_t max_samples; /* tokens of one step that get logits */
    int32_t profile;     /* 1: time the operations of each step, for ll_runner_work() */
} ll_runner_config;

typedef struct {
    uint64_t weight_bytes;  /* in the file's map on the CPU; copied to a GPU */
    uint64_t block_bytes;   /* one KV block over all layers */
    uint64_t kv_bytes;      /* n_blocks of them */
    uint64_t scratch_bytes; /* activations, logits, threads' workspaces */
} ll_plan;

/* One step: a ragged batch. Row r brings tokens [row_start[r], row_start[r + 1]) at the positions
 * row_pos[r], row_pos[r] + 1, ... of its sequence, whose earlier positions are already in its blocks.
 * Rows of generated tokens come before rows of prompts: a device may have an arithmetic for each, of which this, and
 * never the batch, decides. */
typedef struct {
    int32_t n_rows, n_tokens, n_samples, max_blocks;
    int32_t n_generated;      /* so many of the tokens, whole rows */
    const int32_t *tokens;    /* (n_tokens) */
    const int32_t *row_start; /* (n_rows + 1) */
    const int32_t *row_pos;   /* (n_rows) */
    const int32_t *blocks;    /* (n_rows, max_blocks) KV blocks of each row, in order; unused entries are not read */
    const int32_t *samples;   /* (n_samples) indexes into tokens, rising: those whose logits are wanted */
} ll_batch;

/* How one sampled token is drawn. Order: mask, bias, penalties, top_k, top_p, min_p, temperature. */
typedef struct {
    int32_t logits;            /* which sample of the batch that was done last */
    float temperature;         /* 0 is greedy */
    int32_t top_k;             /* 0 is off */
    float top_p, min_p;        /* 1 and 0 are off */
    float repeat_penalty;      /* 1 is off; over the last 64 tokens of history */
    float presence_penalty, frequency_penalty; /* 0 is off; over history[n_prompt:] */
    uint64_t seed;
    uint32_t choice, position; /* with the seed they name the random number: (seed, choice, position) */
    const int32_t *history;    /* (n_history) prompt and output so far */
    int32_t n_history, n_prompt;
    const int32_t *bias_ids;   /* (n_bias) */
    const float *bias;         /* (n_bias) added to the logits */
    int32_t n_bias;
    const uint32_t *mask;      /* (ceil(n_vocab / 32)) bit set = allowed; NULL allows all */
    int32_t n_top;             /* how many top logprobs to report; -1: no logprob at all */
} ll_sampling;

/* The parts of a step, in their order. */
enum {
    LL_OP_BEGIN = 0, /* checks the batch and takes it to the device */
    LL_OP_EMBED = 1,
    LL_OP_NORM_QKV = 2,
    LL_OP_ROTATE_STORE = 3,
    LL_OP_ATTEND = 4,
    LL_OP_ADD_OUT = 5, /* the attention's output product */
    LL_OP_NORM_GLU = 6,
    LL_OP_ADD_DOWN = 7, /* the feed-forward network's */
    LL_OP_HEAD = 8,
    LL_OP_FINISH = 9, /* waits for the device */
    LL_OP_SAMPLE = 10,
    LL_OPS = 11
};

typedef struct {
    const char *name;
    uint64_t calls, nanoseconds; /* a GPU works on after a call: its time shows in LL_OP_FINISH */
    uint64_t multiply_adds;      /* of products and attention */
    uint64_t bytes;              /* of weights and KV cache, each counted once per call and sequence */
} ll_op_work;

int ll_plan_runner(const ll_model *model, const ll_runner_config *config, ll_plan *out);
int ll_runner_open(ll_runner **out, const ll_model *model, const ll_runner_config *config);
void ll_runner_close(ll_runner *runner);
int32_t ll_runner_threads(const ll_runner *runner);
/* 1: tokens of prompts are computed in another arithmetic than generated ones. */
int32_t ll_runner_prompts_apart(const ll_runner *runner);
/* out (LL_OPS): all that was done since the runner was opened. LL_EINVAL unless it was opened with `profile`. */
int ll_runner_work(const ll_runner *runner, ll_op_work *out);
int ll_forward(ll_runner *runner, const ll_batch *batch);
/* Begins a batch that ll_advance() computes a few layers at a time; ll_forward() may compute others in between. Its
 * arrays stay as they are, and its KV blocks its own, until it is done or ll_begin() is called again. */
int ll_begin(ll_runner *runner, const ll_batch *batch);
/* Goes on with that batch for about `seconds`, but at least one layer. *done: 1 when it has logits now, or failed. */
int ll_advance(ll_runner *runner, double seconds, int32_t *done);
/* Copies the logits of the batch that was done last: out is (n_samples, n_vocab). Going on with one loses them. */
int ll_logits(ll_runner *runner, float *out);
/* Draws n tokens from the logits of that batch. tokens (n), logprobs (n), top_ids and top_logprobs (n, max_top). A row
 * whose logits are not finite, or whose mask allows nothing, gets the token -1. */
int ll_sample(ll_runner *runner, const ll_sampling *rows, int32_t n, int32_t max_top, int32_t *tokens, float *logprobs,
              int32_t *top_ids, float *top_logprobs);

/* ---- the machine ---- */

const char *ll_cpu_level(void);    /* scalar, avx2, avx512 or amx: what runs here, LOCALLLM_CPU obeyed */
const char *ll_cpu_features(void); /* the flags that were found, separated by spaces */
int32_t ll_cuda_devices(void);     /* how many; 0 also when built without CUDA */
const char *ll_cuda_status(void);  /* a sentence: which device, or why there is none */

/* What `threads` (0: one per core) can do at once at the level in use. 0 where the machine has no such unit. */
typedef struct {
    double read_gb_s;   /* 1e9 bytes of memory per second */
    double int8_tops;   /* 1e12 operations per second; a multiply-add is two */
    double bf16_tflops;
} ll_roof;

/* Takes about a second. buffer_bytes, which should be far more than the caches hold, is the memory that is read. */
int ll_measure_roof(int32_t threads, uint64_t buffer_bytes, ll_roof *out);

/* ---- for tests ---- */

/* One row: n values of `type` at `src` to float32. n is a multiple of the type's block. */
int ll_test_decode(int32_t type, const void *src, int64_t n, float *dst);
/* out (n, rows) = x (n, cols) times the transpose of w (rows, cols), at a level by name (NULL: the one in use). */
int ll_test_matmul(const char *level, int32_t type, const void *w, int32_t rows, int32_t cols, const float *x,
                   int32_t n, float *out);
/* The same of a prompt's tokens; LL_EUNSUPPORTED where the level or the type has no arithmetic of its own for them. */
int ll_test_prompt_matmul(const char *level, int32_t type, const void *w, int32_t rows, int32_t cols, const float *x,
                          int32_t n, float *out);
/* Draws from logits (n, n_vocab) that the caller gives: ll_sample without a model. */
int ll_test_sample(const float *logits, int32_t n_vocab, const ll_sampling *rows, int32_t n, int32_t max_top,
                   int32_t *tokens, float *logprobs, int32_t *top_ids, float *top_logprobs);
