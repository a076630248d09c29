package record

import "github.com/fxamacker/cbor/v2"

// Strict returns the decoding of everything that comes from others: records, signals, joining, introductions. It is strict, for a hostile
// message must fail early, and no two readers may see different things in one: no key twice, no indefinite lengths, no tags, UTF-8 only,
// four levels of nesting, and at most so many elements of an array and pairs of a map (16 at the least). Unknown keys are passed
// over, for a later version may add some.
func Strict(elements, pairs int) cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  4,
		MaxArrayElements: elements,
		MaxMapPairs:      pairs,
		UTF8:             cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		panic("internal error: CBOR decoding options: " + err.Error())
	}
	return mode
}

// Deterministic returns the encoding of what others decode with Strict: the one form that RFC 8949, section 4.2.1, calls
// deterministic.
func Deterministic() cbor.EncMode { return encoding }

var (
	encoding = func() cbor.EncMode {
		mode, err := cbor.CoreDetEncOptions().EncMode()
		if err != nil {
			panic("internal error: CBOR encoding options: " + err.Error())
		}
		return mode
	}()
	decoding = Strict(64, 64)
)
