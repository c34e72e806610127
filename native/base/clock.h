/* Seconds of a clock that only goes forward. */
#ifndef CLOCK_H
#define CLOCK_H

double clock_seconds(void);

#endif
