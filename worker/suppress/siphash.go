package suppress

import "math/bits"

// sipHash is SipHash-2-4 (Aumasson and Bernstein, 2012), octet by octet: a keyed
// hash that is fast for what is as short as an address.
type sipHash struct {
	key            [2]uint64
	v0, v1, v2, v3 uint64
	word           uint64 // the octets that make no word of 8 yet
	length         uint64
}

func (h *sipHash) start() {
	h.v0 = h.key[0] ^ 0x736f6d6570736575
	h.v1 = h.key[1] ^ 0x646f72616e646f6d
	h.v2 = h.key[0] ^ 0x6c7967656e657261
	h.v3 = h.key[1] ^ 0x7465646279746573
}

func (h *sipHash) write(c byte) {
	h.word |= uint64(c) << (8 * (h.length & 7))
	h.length++
	if h.length&7 == 0 {
		h.mix()
	}
}

func (h *sipHash) mix() {
	h.v3 ^= h.word
	h.round()
	h.round()
	h.v0 ^= h.word
	h.word = 0
}

func (h *sipHash) end() uint64 {
	h.word |= h.length << 56
	h.mix()
	h.v2 ^= 0xff
	for range 4 {
		h.round()
	}
	return h.v0 ^ h.v1 ^ h.v2 ^ h.v3
}

func (h *sipHash) round() {
	h.v0 += h.v1
	h.v1 = bits.RotateLeft64(h.v1, 13) ^ h.v0
	h.v0 = bits.RotateLeft64(h.v0, 32)
	h.v2 += h.v3
	h.v3 = bits.RotateLeft64(h.v3, 16) ^ h.v2
	h.v0 += h.v3
	h.v3 = bits.RotateLeft64(h.v3, 21) ^ h.v0
	h.v2 += h.v1
	h.v1 = bits.RotateLeft64(h.v1, 17) ^ h.v2
	h.v2 = bits.RotateLeft64(h.v2, 32)
}
