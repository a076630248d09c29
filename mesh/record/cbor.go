package record

import "github.com/fxamacker/cbor/v2"

// encoding writes CBOR in the one form that RFC 8949, section 4.2.1, calls deterministic.
var encoding = func() cbor.EncMode {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic("internal error: CBOR encoding options: " + err.Error())
	}
	return mode
}()

// decoding is strict: a hostile record must fail early, and no two readers may see different things in one. Unknown keys are
// passed over, for a later version may add some.
var decoding = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		MaxNestedLevels:  4,
		MaxArrayElements: 64,
		MaxMapPairs:      64,
		UTF8:             cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		panic("internal error: CBOR decoding options: " + err.Error())
	}
	return mode
}()
