package roster

import (
	"crypto/ed25519"
	"crypto/x509"
	"iter"
	"time"

	"warren/mesh/identity"
	"warren/mesh/record"
)

type Roster struct{ root *x509.Certificate }

func New(root *x509.Certificate) *Roster { return &Roster{root} }

var _ apiStub = (*Roster)(nil)

func (r *Roster) Mesh() (m identity.MeshID)                                            { return }
func (r *Roster) Root() *x509.Certificate                                              { return r.root }
func (r *Roster) Add(rec record.Signed, now time.Time) (o Outcome, err error)          { return o, ErrRefused }
func (r *Roster) AddAll(recs []record.Signed, now time.Time) (o Outcome, errs []error) { return }
func (r *Roster) Advance(now time.Time) (o Outcome)                                    { return }
func (r *Roster) NextExpiry() (t time.Time)                                            { return }
func (r *Roster) Members() []Member                                                    { return nil }
func (r *Roster) Member(id identity.NodeID) (m Member, ok bool)                        { return }
func (r *Roster) Standing(id identity.NodeID) error                                    { return nil }
func (r *Roster) Revoked() []Revoked                                                   { return nil }
func (r *Roster) Invites() []InviteStatus                                              { return nil }
func (r *Roster) Chain(id identity.KeyID) []*x509.Certificate                          { return nil }
func (r *Roster) VerifyChain(chain []*x509.Certificate, now time.Time) (id identity.NodeID, err error) {
	return id, ErrRefused
}
func (r *Roster) CheckAdmission(cert *x509.Certificate, now time.Time) error { return ErrRefused }
func (r *Roster) Admit(cert *x509.Certificate, key ed25519.PrivateKey, now time.Time) (a record.Admission, err error) {
	return a, ErrRefused
}
func (r *Roster) Digest() (d [16]byte)                             { return }
func (r *Roster) Buckets() (b [256][8]byte)                        { return }
func (r *Roster) Bucket(i int) []Entry                             { return nil }
func (r *Roster) Get(key record.Key) (s record.Signed, ok bool)    { return }
func (r *Roster) All() iter.Seq2[record.Key, record.Signed]        { return nil }
func (r *Roster) Len() int                                         { return 0 }
