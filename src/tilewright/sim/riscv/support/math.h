/* What generated C uses of math.h: inline where RISC-V has an instruction that does it, else declared for a library to provide. */
#ifndef MATH_H
#define MATH_H

#define INFINITY (__builtin_inff())
#define NAN (__builtin_nanf(""))
#define isnan(x) __builtin_isnan(x)
#define isinf(x) __builtin_isinf(x)

static inline double fabs(double x) { return __builtin_fabs(x); }
static inline float fabsf(float x) { return __builtin_fabsf(x); }
static inline double copysign(double x, double y) { return __builtin_copysign(x, y); }
static inline float copysignf(float x, float y) { return __builtin_copysignf(x, y); }

static inline double sqrt(double x) {
    double y;
    __asm__("fsqrt.d %0, %1" : "=f"(y) : "f"(x));
    return y;
}

static inline double fma(double x, double y, double z) {
    double r;
    __asm__("fmadd.d %0, %1, %2, %3" : "=f"(r) : "f"(x), "f"(y), "f"(z));
    return r;
}

static inline float sqrtf(float x) {
    float y;
    __asm__("fsqrt.s %0, %1" : "=f"(y) : "f"(x));
    return y;
}

static inline float fmaf(float x, float y, float z) {
    float r;
    __asm__("fmadd.s %0, %1, %2, %3" : "=f"(r) : "f"(x), "f"(y), "f"(z));
    return r;
}

/* By way of an integer; from 2^52 on every number is one. Zero keeps its sign. */
#define ROUNDED(name, mode)                                   \
    static inline double name(double x) {                     \
        long long n;                                          \
        if (!(__builtin_fabs(x) < 0x1p52)) return x;          \
        __asm__("fcvt.l.d %0, %1, " mode : "=r"(n) : "f"(x)); \
        return __builtin_copysign((double)n, x);              \
    }                                                         \
    static inline float name##f(float x) { return (float)name(x); }
ROUNDED(rint, "rne")
ROUNDED(trunc, "rtz")
ROUNDED(floor, "rdn")
ROUNDED(ceil, "rup")
ROUNDED(round, "rmm")
#undef ROUNDED

/* Exact: what is subtracted is y times a power of two, and more than half of what is left. */
static inline double fmod(double x, double y) {
    double left = fabs(x), step = fabs(y);
    if (!(left < INFINITY) || !(step > 0)) return NAN;
    while (left >= step) {
        double part = step;
        while (part <= left / 2) part *= 2;
        left -= part;
    }
    return copysign(left, x);
}
static inline float fmodf(float x, float y) { return (float)fmod(x, y); }

double exp(double), exp2(double), expm1(double), log(double), log2(double), log1p(double), erf(double);
double sin(double), cos(double), tan(double), sinh(double), cosh(double), tanh(double);
double asin(double), acos(double), atan(double), atan2(double, double), pow(double, double), ldexp(double, int);

#endif
