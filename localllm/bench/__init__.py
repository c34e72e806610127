"""How fast a model runs here, and how far that is from what the machine could do.

What the numbers of a result mean:
  tokens_per_second      of the whole batch, over the repeats after one warm-up
  gb_s                   1e9 bytes per second that the model's operations had to read in the median repeat: each weight
                         once per step (of the embedding only the rows used), each sequence's KV cache once per step
  share_of_roof          the larger of gb_s over the measured read bandwidth, and 2 x multiply-adds per second (products
                         and attention) over the measured int8 peak. One of them ends first: reading for few tokens at
                         once, arithmetic for many. None where the machine's roof is not known.
  joules_per_token       of the processor packages, or of the GPU; None where the machine does not tell
  scheduler_us_per_step  microseconds of a step outside the native library: what Python costs

Scheduler and runner are called as the engine calls them, step by step, in the calling thread: scheduling, the forward
pass, drawing the tokens and committing them are measured; handing tokens to their readers is not.
"""
