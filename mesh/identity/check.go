package identity

import (
	"fmt"
)

const (
	symbolAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	checkBlocks    = 3
	checkSize      = 2 * checkBlocks
)

// gf64 is the field of 64 elements, as tables of powers and logarithms of x modulo x⁶+x+1, a primitive polynomial.
var gf64 = func() (t struct{ exp, log [64]byte }) {
	x := 1
	for i := range 63 {
		t.exp[i], t.log[x] = byte(x), byte(i)
		if x <<= 1; x&64 != 0 {
			x ^= 0b1000011
		}
	}
	return t
}()

// checkSymbols returns the six symbols that follow the given ones in a token. All symbols are dealt to three blocks in
// turn, and the last two of a block make it a Reed–Solomon word: with c the symbols of a block and α a
// primitive element of the field of 64, Σ cᵢ = 0 and Σ cᵢαⁱ = 0. So a wrong symbol in a block is not only noticed but found, and two
// symbols that changed places are found too, being in different blocks. Random damage passes with a
// chance of 2⁻³⁶.
func checkSymbols(symbols []byte) []byte {
	n := len(symbols)
	check := make([]byte, checkSize)
	for i := range checkBlocks {
		// The check symbols p, q of this block stand at n+i and n+i+3, in the block at j and j+1:
		// p + q = s and pαʲ + qαʲ⁺¹ = t, so q = (t + sαʲ) / (αʲ + αʲ⁺¹) and p = s + q.
		block := (n + i) % checkBlocks
		s, t := syndromes(symbols, block)
		a, b := power((n+i)/checkBlocks), power((n+i)/checkBlocks+1)
		q := divide(t^multiply(s, a), a^b)
		check[i], check[i+checkBlocks] = s^q, q
	}
	return check
}

// findMistyped checks the symbols of a whole token. The error wraps ErrTokenMistyped and names the characters that are
// wrong, if they are few.
func findMistyped(symbols []byte) error {
	var wrong []int
	bad, found := 0, 0
	for block := range checkBlocks {
		s, t := syndromes(symbols, block)
		if s == 0 && t == 0 {
			continue
		}
		bad++
		if s == 0 || t == 0 {
			continue // two or more wrong symbols in the block
		}
		if at := checkBlocks*int(gf64.log[divide(t, s)]) + block; at < len(symbols) {
			wrong = append(wrong, tokenStart+at+1)
			found++
		}
	}
	switch {
	case bad == 0:
		return nil
	case bad == checkBlocks || found < bad:
		return fmt.Errorf("several characters are wrong: %w", ErrTokenMistyped)
	case found == 1:
		return fmt.Errorf("character %d looks wrong: %w", wrong[0], ErrTokenMistyped)
	}
	return fmt.Errorf("characters %d and %d look wrong: %w", min(wrong[0], wrong[1]), max(wrong[0], wrong[1]), ErrTokenMistyped)
}

// syndromes returns Σ cᵢ and Σ cᵢαⁱ over the symbols of one block.
func syndromes(symbols []byte, block int) (s, t byte) {
	for i := block; i < len(symbols); i += checkBlocks {
		s ^= symbols[i]
		t ^= multiply(symbols[i], power(i/checkBlocks))
	}
	return s, t
}

func power(i int) byte { return gf64.exp[i%63] }

func multiply(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return gf64.exp[(int(gf64.log[a])+int(gf64.log[b]))%63]
}

// divide returns a/b for a b that is not zero.
func divide(a, b byte) byte {
	if a == 0 {
		return 0
	}
	return gf64.exp[(int(gf64.log[a])+63-int(gf64.log[b]))%63]
}
