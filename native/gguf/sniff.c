/* Guesses what someone gave in place of a GGUF file, so that the sentence can say it. */
#include <string.h>

#include "parse.h"

static const struct {
    const char *magic;
    uint64_t length;
    const char *what;
} magics[] = {
    {"lmgg", 4, "a GGML file of 2023, which must be converted to GGUF"},
    {"fmgg", 4, "a GGMF file of 2023, which must be converted to GGUF"},
    {"tjgg", 4, "a GGJT file of 2023, which must be converted to GGUF"},
    {"algg", 4, "a GGLA adapter of 2023, which must be converted to GGUF"},
    {"PK\3\4", 4, "a ZIP archive (a PyTorch checkpoint?)"},
    {"\x80\2", 2, "a Python pickle (a PyTorch checkpoint?)"},
    {"\x80\3", 2, "a Python pickle (a PyTorch checkpoint?)"},
    {"\x80\4", 2, "a Python pickle (a PyTorch checkpoint?)"},
    {"\x80\5", 2, "a Python pickle (a PyTorch checkpoint?)"},
    {"\x1f\x8b", 2, "a gzip archive"},
    {"\x28\xb5\x2f\xfd", 4, "a Zstandard archive"},
    {"\3757zXZ", 5, "an xz archive"},
    {"\x89HDF", 4, "an HDF5 file"},
    {"\177ELF", 4, "a program (ELF)"},
    {"version https://git-lfs", 23, "a Git LFS pointer: the model itself was not downloaded"},
    {"<!DOCTYPE", 9, "an HTML page: the download gave an error or a login page"},
    {"<!doctype", 9, "an HTML page: the download gave an error or a login page"},
    {"<html", 5, "an HTML page: the download gave an error or a login page"},
    {"<HTML", 5, "an HTML page: the download gave an error or a login page"},
    {"<?xml", 5, "an XML document"},
    {"{", 1, "JSON text"},
};

static bool is_safetensors(const uint8_t *data, uint64_t size) {
    uint64_t header;
    if (size < 10) return false;
    memcpy(&header, data, sizeof header);
    return header >= 2 && header <= size - 8 && data[8] == '{';
}

static bool is_zero(const uint8_t *data, uint64_t size) {
    for (uint64_t i = 0; i < size && i < 4096; i++) {
        if (data[i]) return false;
    }
    return true;
}

const char *sniff(const uint8_t *data, uint64_t size) {
    uint64_t at = 0;
    if (is_zero(data, size)) return "zeros: an unfinished download";
    if (is_safetensors(data, size)) return "a safetensors file, which must be converted to GGUF";
    while (at < size && (data[at] == ' ' || data[at] == '\n' || data[at] == '\r' || data[at] == '\t')) at++;
    for (uint64_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        if (magics[i].length <= size - at && !memcmp(data + at, magics[i].magic, magics[i].length))
            return magics[i].what;
    }
    return NULL;
}
