; Work for an SMT solver that runs as a guest: the two 16-bit factors of 1,023,807,973, which are
; prime, so that there is one answer.
(set-logic QF_BV)
(set-option :produce-models true)
(declare-fun x () (_ BitVec 32))
(declare-fun y () (_ BitVec 32))
(assert (= (bvmul x y) (_ bv1023807973 32)))
(assert (bvult x y))
(assert (bvugt x #x00000001))
(assert (bvult y #x00010000))
(check-sat)
(get-value (x y))
(exit)
