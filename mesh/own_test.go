package mesh

import (
	"testing"

	"warren/mesh/identity"
	"warren/mesh/record"
)

// Two members may admit a joiner that asked both. Its first record, with the one admission, is then at some of the
// members, and a record with the other never takes its place: the node has to go on under the one that counts.
func TestOwnRecordTakesOverTheAdmissionThatCounts(t *testing.T) {
	first := record.Admission{Time: 100, Signer: identity.NodeID{1}, Signature: []byte{1}}
	second := record.Admission{Time: 101, Signer: identity.NodeID{2}, Signature: []byte{2}}
	o := own{node: record.Node{Certificate: []byte("certificate"), Admission: second, Name: "here"}}
	o.adopt(record.Node{Certificate: []byte("another"), Admission: first})
	if o.node.Admission.Time != second.Time {
		t.Errorf("got the admission of another certificate: %+v", o.node.Admission)
	}
	o.adopt(record.Node{Certificate: []byte("certificate"), Admission: first, Name: "elsewhere"})
	if o.node.Admission.Time != first.Time || o.node.Admission.Signer != first.Signer || o.node.Name != "here" {
		t.Errorf("got %+v, want the first admission and nothing else changed", o.node)
	}
}
