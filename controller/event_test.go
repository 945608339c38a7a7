package controller

import (
	"reflect"
	"testing"
	"testing/synctest"
)

func TestAPlanCanBeMadeAgainFromItsBasis(t *testing.T) {
	converse(t, nil, func(t *testing.T, talk talk) {
		talk.worker.Run(t)
		synctest.Wait()
		plans := 0
		for _, event := range talk.journal.all() {
			planned, ok := event.(Planned)
			if !ok {
				continue
			}
			plans++
			again, err := planned.Basis.build()
			again.Version = planned.Plan.Version
			if err != nil || !reflect.DeepEqual(again, planned.Plan) {
				t.Errorf("plan %d: %v\ngot  %+v\nwant %+v", planned.Plan.Version, err, again, planned.Plan)
			}
		}
		if plans != 2 {
			t.Errorf("%d plans, want 2", plans)
		}
	})
}
