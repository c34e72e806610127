/* Plays machines for cpuinfo.c. A request a line on standard input, an answer a line on standard output:
 *   cpu LEAF1_ECX LEAF7_EBX LEAF7_ECX LEAF7_EDX LEAF7_1_EAX XCR0 GRANTED    (hexadecimal)  the level's name
 *   quota MOUNT MEMBERSHIP                                                  the cores that cpu_quota() finds
 *   this                                                                    level, cores of this machine */
#include <inttypes.h>
#include <stdio.h>

#include "cpu/cpuinfo.h"

static int answer(const char *line) {
    struct cpu_answers a;
    char mount[1024], membership[1024];
    unsigned granted;
    enum cpu_level level = CPU_SCALAR;
    if (sscanf(line, "cpu %" SCNx32 " %" SCNx32 " %" SCNx32 " %" SCNx32 " %" SCNx32 " %" SCNx64 " %u", &a.leaf1_ecx,
               &a.leaf7_ebx, &a.leaf7_ecx, &a.leaf7_edx, &a.leaf7_1_eax, &a.xcr0, &granted) == 7) {
        a.tiles_granted = granted != 0;
        return printf("%s\n", cpu_level_name(cpu_level_of(cpu_features(&a))));
    }
    if (sscanf(line, "quota %1023s %1023s", mount, membership) == 2)
        return printf("%d\n", (int)cpu_quota(mount, membership));
    return printf("%s %d\n", cpu_level_in_use(&level) ? "invalid" : cpu_level_name(level), (int)cpu_count());
}

int main(void) {
    char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        if (answer(line) < 0) return 1;
    }
    return 0;
}
