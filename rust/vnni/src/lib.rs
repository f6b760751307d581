//! AVX-512's products of whole numbers of 8 bits, which pulp has no function for.
//!
//! The core forbids unsafe code. This is all of it that it needs: a call that is right wherever pulp's token is, since
//! that is handed out on CPUs alone that have the instruction.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::{__m512i, _mm512_dpbusd_epi32};

pulp::simd_type! {
    /// AVX-512 with the instructions that multiply whole numbers and add the products to sums at once.
    #[allow(missing_docs, reason = "the fields are pulp's tokens, and there is no place for words about them")]
    pub struct Vnni {
        pub avx: "avx",
        pub avx2: "avx2",
        pub fma: "fma",
        pub avx512f: "avx512f",
        pub avx512bw: "avx512bw",
        pub avx512cd: "avx512cd",
        pub avx512dq: "avx512dq",
        pub avx512vl: "avx512vl",
        pub avx512vnni: "avx512vnni",
    }
}

impl Vnni {
    /// Adds to each of 16 sums four products, of numbers without a sign and numbers with one, of 8 bits each.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the instruction is there only in what is inlined into pulp's dispatch")]
    pub fn add_products(self, sums: __m512i, unsigned: __m512i, signed: __m512i) -> __m512i {
        // SAFETY: whoever has a token has asked the CPU, or has promised in unsafe code of his own that it has them.
        unsafe { _mm512_dpbusd_epi32(sums, unsigned, signed) }
    }
}
