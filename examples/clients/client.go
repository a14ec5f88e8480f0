// The client of main.go: sends and calls, from any number of goroutines, on one channel.
package main

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const unit, timeout, replyTo = 125 * time.Millisecond, 30 * time.Second, "amq.rabbitmq.reply-to"

var channel *amqp.Channel      // which has confirms
var returns chan amqp.Return   // what no queue took: the broker returns a message before it confirms it
var returned, waiting sync.Map // ids of returned messages; where a reply goes, by correlation id
var lock sync.Mutex

func newID() string { return fmt.Sprintf("%.36s", must(os.ReadFile("/proc/sys/kernel/random/uuid"))) }
func in(delay time.Duration) string {
	return time.Now().UTC().Add(delay).Format("2006-01-02T15:04:05.000Z")
}

// send publishes a message for shop.welcome with this JSON, and returns once the broker has stored it.
func send(queue, body string, delay time.Duration, headers amqp.Table, message amqp.Publishing) error {
	exchange := "amqpworker.tasks"
	for units := uint((delay + unit - 1) / unit); units != 0; units &= units - 1 { // from its lowest bit to its highest
		level := fmt.Sprintf("%02d", bits.TrailingZeros(units))
		exchange, headers["aw-wait-"+level], headers["aw-eta"] = "amqpworker.delay."+level, true, in(delay)
	}
	message.MessageId, message.Type, message.DeliveryMode = newID(), "shop.welcome", amqp.Persistent
	message.ContentType, message.Headers, message.Body = "application/json", headers, []byte(body)
	confirm, err := channel.PublishWithDeferredConfirm(exchange, queue, true, false, message)
	if err != nil || !confirm.Wait() {
		return fmt.Errorf("the broker did not store the message: %v", err)
	}
	lock.Lock()
	defer lock.Unlock()
	for len(returns) > 0 {
		returned.Store((<-returns).MessageId, true)
	}
	if _, found := returned.LoadAndDelete(message.MessageId); found {
		return fmt.Errorf("there is no queue %s", queue)
	}
	return nil
}

// call runs the task in a worker, and returns what it returned.
func call(body string) (any, error) {
	id, replies := newID(), make(chan []byte, 1) // a new correlation id for each call
	waiting.Store(id, replies)
	defer waiting.Delete(id)
	message, headers := amqp.Publishing{CorrelationId: id, ReplyTo: replyTo}, amqp.Table{"aw-expires": in(timeout)}
	if err := send("welcomes", body, 0, headers, message); err != nil {
		return nil, err
	}
	select {
	case content := <-replies:
		reply := map[string]any{}
		if err := json.Unmarshal(content, &reply); err != nil || reply["status"] == "done" {
			return reply["value"], err
		}
		return nil, fmt.Errorf("%v: %v: %v", reply["reason"], reply["error_type"], reply["error"])
	case <-time.After(timeout):
		return nil, fmt.Errorf("no reply in %v; the task may have run", timeout)
	}
}
